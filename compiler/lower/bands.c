/* Bands: a chain of operators on pictures, each result read by the next one alone, is computed for some rows of the last
 * result at a time. Of the pictures between, only the rows that a band needs exist, so that they take less of the
 * arena; rows that two bands need are computed twice, and weights are read once for each band. Program.bands says how
 * many bands, and Program.band_links how many operators of a chain from its end on; schedule/bands.c chooses them.
 *
 * The kernels know nothing of it: a band is a smaller picture with tables of its own. Each element is computed as it
 * is without bands, so results are the same to the bit.
 */
#include "lower/bands.h"

#include "resize.h"

enum { MOST_LINKS = 16 };

/* An operator of a chain is told by the node that gives its result; a convolution with a pointwise one behind it that
 * is computed at once is told by the latter. */
static const Node *first_of(const Program *p, const Node *n) {
  const Node *before = n->op == OP_CONV ? n->in[0]->producer : NULL;
  return before && resize_conv_point(p, before) == n ? before : n;
}

static bool can_band(const Program *p, const Node *n) {
  const Value *y = n->n_out == 1 ? n->out[0] : NULL;
  if (!y || y->dtype != DT_F32 || y->shape.rank != 4 || y->shape.dim[0].n != 1 || shape_count(&y->shape) == 0)
    return false;
  if (first_of(p, n) != n || n->op == OP_RESIZE_CONV) return resize_conv_can_band(p, n);
  return n->op == OP_RESIZE && resize_can_band(p, n);
}

/* The link behind v, if v is read by nobody else. */
static Node *link_after(const Program *p, const Value *v) {
  if (!value_single_use(v)) return NULL;
  Node *n = v->uses[0].node;
  if (n->tasks != v->producer->tasks || v->uses[0].input != 0) return NULL;
  Node *point = n->op == OP_RESIZE_CONV ? resize_conv_point(p, n) : NULL;
  n = point ? point : n;
  return can_band(p, n) ? n : NULL;
}

/* The chain's link before n, or NULL. */
static Node *link_before(const Program *p, const Node *n) {
  const Value *x = first_of(p, n)->in[0];
  if (!x->producer || !can_band(p, x->producer)) return NULL;
  return link_after(p, x) == n ? x->producer : NULL;
}

/* Links from n on to the end of its chain, n included. */
static int links_from(const Program *p, const Node *n) {
  int links = 1;
  for (const Node *k = n; (k = link_after(p, k->out[0]));) links++;
  return links;
}

/* The end of a chain with at least one link before it; its links, last first, as many as are wanted. */
static int chain_ending(const Program *p, Node *n, Node *link[MOST_LINKS]) {
  int count = 0;
  if (!can_band(p, n) || link_after(p, n->out[0])) return 0;
  for (Node *k = n; k && count < p->band_links && count < MOST_LINKS; k = link_before(p, k)) link[count++] = k;
  return count > 1 ? count : 0;
}

bool bands_waits(const Program *p, const Node *n) {
  if (p->bands < 2 || p->folding) return false;
  Node *point = n->op == OP_RESIZE_CONV ? resize_conv_point(p, n) : NULL;
  if (point) return true; /* in any case */
  if (!can_band(p, n)) return false;
  int behind = links_from(p, n) - 1;
  return behind > 0 && behind < p->band_links && behind < MOST_LINKS;
}

int bands_longest(Program *p) {
  int longest = 0;
  for (const Node *n = p->graph->first; n; n = n->next) {
    int links = can_band(p, n) ? links_from(p, n) : 0;
    if (links > longest) longest = links;
  }
  return longest > 1 ? longest : 0;
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

static const int channels_last[4] = {0, 2, 3, 1};

static void reach(Program *p, const Node *n, int64_t from, int64_t rows, int64_t *first, int64_t *count) {
  (n->op == OP_RESIZE ? resize_reach : resize_conv_reach)(p, first_of(p, n), from, rows, first, count);
}

static RowBand rows_of(const View *picture, int64_t first, int64_t count) {
  return (RowBand){view_slice(picture, 2, first, count, 1), first};
}

/* Memory for some rows of n's result. */
static RowBand make_window(Program *p, const Node *n, int64_t first, int64_t rows) {
  const Value *v = n->out[0];
  int64_t channels = v->shape.dim[1].n, width = v->shape.dim[3].n;
  View w = low_temp(p, v->name, DT_F32, rows * width * channels);
  w.rank = 4;
  const int64_t dim[] = {1, channels, rows, width};
  const int64_t stride[] = {rows * width * channels, 1, width * channels, channels};
  for (int i = 0; i < 4; i++) {
    w.dim[i] = dim[i];
    w.stride[i] = stride[i];
  }
  return (RowBand){w, first};
}

static void mark_steps(const Program *p, const Step *after, const RowBand *y) {
  for (Step *s = after ? after->next : p->first; s; s = s->next) {
    s->band_first = y->first;
    s->band_rows = y->view.dim[2];
  }
}

/* Kernels take rows in pairs, and the order of their sums may depend on the pair: a band has whole pairs. */
static void whole_pairs(const Node *n, int64_t *first, int64_t *count) {
  int64_t height = n->out[0]->shape.dim[2].n, stop = round_up(*first + *count, 2);
  *first -= *first % 2;
  *count = (stop < height ? stop : height) - *first;
}

/* Rows of the last picture: what they need of the ones before, from the first link on. */
static void lower_band(Program *p, Node *const *link, int links, const View *x, const View *y, int64_t first,
                       int64_t rows) {
  int64_t from[MOST_LINKS + 1], count[MOST_LINKS + 1]; /* of link i's result; behind the last: of x */
  from[0] = first;
  count[0] = rows;
  for (int i = 0; i < links; i++) {
    reach(p, link[i], from[i], count[i], &from[i + 1], &count[i + 1]);
    if (i + 1 < links) whole_pairs(link[i + 1], &from[i + 1], &count[i + 1]);
  }
  RowBand in = rows_of(x, from[links], count[links]);
  for (int i = links - 1; i >= 0; i--) {
    Step *before = p->last;
    Node *n = link[i];
    bool in_place = i == 0 && view_has_order(y, channels_last);
    RowBand out = in_place ? rows_of(y, first, rows) : make_window(p, n, from[i], count[i]);
    if (n->op == OP_RESIZE)
      resize_band(p, n, &in, &out);
    else
      resize_conv_band(p, n, &in, &out);
    RowBand there = rows_of(y, first, rows);
    if (i == 0 && !in_place) low_copy(p, n, &out.view, &there.view);
    mark_steps(p, before, &out);
    in = out;
  }
}

bool bands_lower(Program *p, Node *n) {
  Node *link[MOST_LINKS];
  int links = p->bands < 2 || p->folding ? 0 : chain_ending(p, n, link);
  if (!links) return false;
  Value *v = first_of(p, link[links - 1])->in[0];
  View x = low_view(p, v), y;
  if (x.dim[1] > 1 && x.stride[1] != 1) x = low_order(p, v, channels_last);
  if (link[links - 1]->op == OP_RESIZE) x = low_order(p, v, channels_last);
  y = low_output(p, n->out[0], n->out[0]->is_output ? NULL : channels_last);
  int64_t height = y.dim[2], pairs = (height + 1) / 2;
  for (int64_t b = 0; b < p->bands; b++) {
    int64_t first = pairs * b / p->bands * 2, stop = pairs * (b + 1) / p->bands * 2;
    stop = stop < height ? stop : height;
    if (first < stop) lower_band(p, link, links, &x, &y, first, stop - first);
  }
  return true;
}
