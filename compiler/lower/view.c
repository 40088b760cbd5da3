/* Strided views: layout operators as arithmetic on strides, so that they cost nothing at run time. */
#include "lower/lower.h"

static int64_t view_count(const View *w) {
  int64_t n = 1;
  for (int i = 0; i < w->rank; i++) n *= w->dim[i];
  return n;
}

bool view_has_order(const View *w, const int *order) {
  int64_t stride = 1;
  if (view_count(w) == 0) return true;
  for (int i = w->rank - 1; i >= 0; i--) {
    int d = order ? order[i] : i;
    if (w->dim[d] == 1) continue;
    if (w->stride[d] != stride) return false;
    stride *= w->dim[d];
  }
  return true;
}

bool view_is_packed(const View *w) { return view_has_order(w, NULL); }

void view_order(const View *w, int *order) {
  for (int i = 0; i < w->rank; i++) {
    int at = i;
    if (w->dim[i] > 1 && w->stride[i])
      for (; at > 0; at--) { /* insertion: larger strides come first, broadcast and unit dimensions stay */
        int d = order[at - 1];
        if (w->dim[d] == 1 || !w->stride[d] || w->stride[d] >= w->stride[i]) break;
        order[at] = d;
      }
    order[at] = i;
  }
}

View view_transpose(const View *w, const int *perm) {
  View out = *w;
  for (int i = 0; i < w->rank; i++) {
    out.dim[i] = w->dim[perm[i]];
    out.stride[i] = w->stride[perm[i]];
  }
  return out;
}

View view_slice(const View *w, int axis, int64_t start, int64_t count, int64_t step) {
  View out = *w;
  out.offset += start * w->stride[axis];
  out.dim[axis] = count;
  out.stride[axis] = w->stride[axis] * step;
  return out;
}

View view_broadcast(const View *w, int rank, const int64_t *dim) {
  View out = *w;
  out.rank = rank;
  for (int i = rank - 1; i >= 0; i--) {
    int from = i - (rank - w->rank);
    out.dim[i] = dim[i];
    out.stride[i] = from < 0 || (w->dim[from] == 1 && dim[i] != 1) ? 0 : w->stride[from];
  }
  return out;
}

/* Old dimensions are gathered into groups whose product equals that of a group of new ones; within a group the old ones
 * must be laid without gaps relative to each other. */
bool view_reshape(const View *w, int rank, const int64_t *dim, View *out) {
  *out = *w;
  out->rank = rank;
  for (int i = 0; i < rank; i++) out->dim[i] = dim[i];
  if (view_count(w) == 0) {
    for (int i = 0; i < rank; i++) out->stride[i] = 0;
    return true;
  }
  int old = 0, new = 0;
  while (old < w->rank || new < rank) {
    int old_from = old, new_from = new;
    int64_t old_product = 1, new_product = 1;
    if (old < w->rank) old_product = w->dim[old++];
    if (new < rank) new_product = dim[new ++];
    while (old_product != new_product) {
      if (old_product < new_product) {
        if (old == w->rank) return false;
        old_product *= w->dim[old++];
      } else {
        if (new == rank) return false;
        new_product *= dim[new ++];
      }
    }
    int64_t inner = 0, expected = 0; /* stride of the group's innermost real dimension; what the next outer must have */
    for (int d = old - 1; d >= old_from; d--) {
      if (w->dim[d] == 1) continue;
      if (!expected)
        inner = w->stride[d];
      else if (w->stride[d] != expected)
        return false;
      expected = w->stride[d] * w->dim[d];
      if (!w->stride[d] && old_product != w->dim[d]) { /* broadcast dimensions merge only among themselves */
        for (int e = old_from; e < old; e++)
          if (w->dim[e] != 1 && w->stride[e]) return false;
        expected = 0;
      }
    }
    int64_t stride = inner;
    for (int d = new - 1; d >= new_from; d--) {
      out->stride[d] = dim[d] == 1 ? 0 : stride;
      stride *= dim[d];
    }
  }
  return true;
}
