/* Pictures as inputs: resized to the input's size, channels in its order, normalised as its metadata says. */
#include "io/io.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The input's height, width and channels for a layout; false: the shape does not fit. */
static bool split_shape(bool channels_last, int rank, const int64_t *dim, int64_t *h, int64_t *w, int64_t *channels) {
  if (rank == 4 && dim[0] != 1) return false;
  if (rank == 4) dim++, rank--;
  if (rank != 3) return false;
  *channels = channels_last ? dim[2] : dim[0];
  *h = channels_last ? dim[0] : dim[1];
  *w = channels_last ? dim[1] : dim[2];
  return (*channels == 1 || *channels == 3) && *h >= 1 && *w >= 1 && *h <= PICTURE_SIDE && *w <= PICTURE_SIDE;
}

static char *dims_text(Ctx *c, int rank, const int64_t *dim) {
  Text t = {.ctx = c};
  for (int i = 0; i < rank; i++) text_add(&t, i ? ",%lld" : "[%lld", (long long)dim[i]);
  text_add(&t, rank ? "]" : "[]");
  return t.text;
}

/* One number, or three with commas. */
static void parse_three(Ctx *c, const char *name, const char *key, const char *text, float out[3]) {
  const char *p = text;
  int n = 0;
  while (n < 3) {
    char *end;
    out[n] = strtof(p, &end);
    if (end == p || !isfinite(out[n])) break;
    n++;
    p = end;
    if (*p != ',') break;
    p++;
  }
  if (*p || (n != 1 && n != 3)) ctx_fail(c, NULL, "input \"%s\": %s=%s is not one number or three", name, key, text);
  if (n == 1) out[1] = out[2] = out[0];
}

static bool choose(Ctx *c, const char *name, const Described *d, const char *key, const char *no, const char *yes) {
  const char *value = described_get(d, key, no);
  if (strcmp(value, yes) == 0) return true;
  if (strcmp(value, no) != 0) ctx_fail(c, NULL, "input \"%s\": %s=%s: it is %s or %s", name, key, value, no, yes);
  return false;
}

ImageInput image_input_parse(Ctx *c, const char *name, const char *text, int rank, const int64_t *dim) {
  static const char *const keys[] = {"layout", "color", "mean", "std", "scale", "resize", NULL};
  const char *about = ctx_format(c, "moecc.input.%s", name);
  Described d = described_parse(c, about, text ? text : "image", keys);
  if (strcmp(d.kind, "image") != 0) ctx_fail(c, NULL, "%s: \"%s\" is not a kind of input; \"image\" is", about, d.kind);
  ImageInput f = {.channels_last = choose(c, name, &d, "layout", "NCHW", "NHWC"),
                  .bgr = choose(c, name, &d, "color", "RGB", "BGR"),
                  .crop = choose(c, name, &d, "resize", "stretch", "crop")};
  int64_t h, w, channels;
  if (!described_get(&d, "layout", NULL) && !split_shape(false, rank, dim, &h, &w, &channels)) f.channels_last = true;
  if (!split_shape(f.channels_last, rank, dim, &h, &w, &channels))
    ctx_fail(c, NULL, "input \"%s\" of shape %s cannot be a picture%s: give it as a .npy file", name,
             dims_text(c, rank, dim), described_get(&d, "layout", NULL) ? " in that layout" : "");
  float scale[3];
  parse_three(c, name, "mean", described_get(&d, "mean", "0.485,0.456,0.406"), f.mean);
  parse_three(c, name, "std", described_get(&d, "std", "0.229,0.224,0.225"), f.std);
  parse_three(c, name, "scale", described_get(&d, "scale", "255"), scale);
  f.scale = scale[0];
  if (f.scale == 0 || f.std[0] == 0 || f.std[1] == 0 || f.std[2] == 0)
    ctx_fail(c, NULL, "input \"%s\": std and scale must not be 0", name);
  return f;
}

/* The picture at the input's size, as floats: all of it, or the largest part in the middle of the right proportions. */
static const float *fit(Ctx *c, const Picture *p, bool crop, int h, int w) {
  double width = p->width, height = p->height;
  if (crop && width * h > height * w)
    width = height * w / h;
  else if (crop)
    height = width * h / w;
  return picture_resample(c, p, (p->width - width) / 2, (p->height - height) / 2, width, height, w, h);
}

static float normalised(const ImageInput *f, const float *rgb, int channel, int channels) {
  if (channels == 1) return ((0.299f * rgb[0] + 0.587f * rgb[1] + 0.114f * rgb[2]) / f->scale - f->mean[0]) / f->std[0];
  return (rgb[f->bgr ? 2 - channel : channel] / f->scale - f->mean[channel]) / f->std[channel];
}

static void store(Tensor *t, size_t at, float x) {
  void *data = tensor_writable(t);
  switch (t->dtype) {
  case DT_F32: ((float *)data)[at] = x; break;
  case DT_F64: ((double *)data)[at] = (double)x; break;
  case DT_F16: ((uint16_t *)data)[at] = float_to_half(x); break;
  case DT_BF16: ((uint16_t *)data)[at] = float_to_bfloat(x); break;
  case DT_U8: ((uint8_t *)data)[at] = (uint8_t)fminf(255, fmaxf(0, x + 0.5f)); break;
  default: ((int32_t *)data)[at] = (int32_t)fminf(255, fmaxf(0, x + 0.5f)); break;
  }
}

Tensor *image_to_tensor(Ctx *c, const Picture *p, const ImageInput *format, DType dtype, int rank, const int64_t *dim) {
  int64_t h, w, channels;
  ImageInput f = *format;
  if (!dtype_is_float(dtype) && dtype != DT_U8 && dtype != DT_I32)
    ctx_fail(c, NULL, "a picture cannot be an input of type %s", dtype_name(dtype));
  if (!split_shape(f.channels_last, rank, dim, &h, &w, &channels))
    ctx_fail(c, NULL, "a picture cannot be an input of shape %s", dims_text(c, rank, dim));
  if (!dtype_is_float(dtype)) f = (ImageInput){.bgr = f.bgr, .std = {1, 1, 1}, .scale = 1};
  const float *rgb = fit(c, p, format->crop, (int)h, (int)w);
  Tensor *t = tensor_new(c, dtype, rank, dim, NULL);
  size_t pixels = (size_t)(h * w);
  for (size_t i = 0; i < pixels; i++)
    for (int k = 0; k < channels; k++)
      store(t, format->channels_last ? i * (size_t)channels + (size_t)k : (size_t)k * pixels + i,
            normalised(&f, rgb + 3 * i, k, (int)channels));
  return t;
}
