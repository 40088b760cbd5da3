/* Resampling: separable, first along rows, then along columns. An output pixel is the weighted mean of the input pixels
 * under a triangle centred on it, one input pixel wide to each side when enlarging (that is bilinear), one output pixel
 * wide when reducing. Outside the picture its edge pixels repeat. */
#include "io/io.h"

#include <math.h>
#include <string.h>

/* Of one output position: input positions from `first` on, and their weights, which add up to 1. */
typedef struct {
  int first, n;
  float *weight;
} Taps;

static Taps taps_at(Ctx *c, double centre, double reach, int size) {
  int low = (int)floor(centre - reach), high = (int)ceil(centre + reach);
  int first = low < 0 ? 0 : low >= size ? size - 1 : low, last = high >= size ? size - 1 : high < 0 ? 0 : high;
  Taps t = {first, last - first + 1, ctx_array(c, (size_t)(last - first + 1), sizeof(float))};
  double sum = 0;
  for (int i = low; i <= high; i++) sum += fmax(0, 1 - fabs(i - centre) / reach);
  for (int i = low; i <= high; i++) {
    int at = i < first ? first : i > last ? last : i;
    t.weight[at - first] += (float)(fmax(0, 1 - fabs(i - centre) / reach) / sum);
  }
  return t;
}

/* The taps of `n` outputs over [start, start+length) of `size` inputs. */
static Taps *taps_for(Ctx *c, double start, double length, int n, int size) {
  Taps *taps = ctx_array(c, (size_t)n, sizeof *taps);
  double step = length / n, reach = step > 1 ? step : 1;
  for (int i = 0; i < n; i++) taps[i] = taps_at(c, start + (i + 0.5) * step - 0.5, reach, size);
  return taps;
}

static void resample_row(const uint8_t *in, const Taps *taps, int n, float *out) {
  for (int x = 0; x < n; x++)
    for (int k = 0; k < 3; k++) {
      float sum = 0;
      for (int i = 0; i < taps[x].n; i++) sum += taps[x].weight[i] * (float)in[(taps[x].first + i) * 3 + k];
      out[x * 3 + k] = sum;
    }
}

float *picture_resample(Ctx *c, const Picture *p, double x, double y, double w, double h, int width, int height) {
  if (width < 1 || height < 1 || width > PICTURE_SIDE || height > PICTURE_SIDE ||
      (int64_t)width * height > PICTURE_PIXELS)
    ctx_fail(c, NULL, "a picture cannot be resized to %d x %d pixels", width, height);
  Taps *across = taps_for(c, x, w, width, p->width), *down = taps_for(c, y, h, height, p->height);
  size_t row = (size_t)width * 3;
  float *out = ctx_array(c, (size_t)height, row * sizeof(float)), *line = ctx_array(c, row, sizeof(float));
  int *begin = ctx_array(c, (size_t)p->height + 1, sizeof *begin); /* first output row that an input row may touch */
  for (int i = 0, o = 0; i < p->height; i++) {
    while (o < height && down[o].first + down[o].n <= i) o++;
    begin[i] = o;
  }
  for (int i = 0; i < p->height; i++) {
    bool made = false;
    for (int o = begin[i]; o < height && down[o].first <= i; o++) {
      if (down[o].first + down[o].n <= i) continue;
      if (!made) resample_row(p->rgb + (size_t)i * (size_t)p->width * 3, across, width, line), made = true;
      float weight = down[o].weight[i - down[o].first];
      for (size_t k = 0; k < row; k++) out[(size_t)o * row + k] += weight * line[k];
    }
  }
  return out;
}

Picture *picture_resize(Ctx *c, const Picture *p, int width, int height) {
  if (width == p->width && height == p->height) {
    Picture *same = picture_new(c, width, height);
    memcpy(same->rgb, p->rgb, (size_t)width * (size_t)height * 3);
    return same;
  }
  const float *f = picture_resample(c, p, 0, 0, p->width, p->height, width, height);
  Picture *out = picture_new(c, width, height);
  for (size_t i = 0; i < (size_t)width * (size_t)height * 3; i++)
    out->rgb[i] = (uint8_t)fminf(255, fmaxf(0, f[i] + 0.5f));
  return out;
}
