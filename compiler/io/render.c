/* Outputs as pictures, and pictures side by side. One function per kind, in one table. */
#include "io/io.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* An output seen as channels of height × width. */
typedef struct {
  Ctx *ctx;
  const char *name; /* for messages */
  const Tensor *tensor;
  const Described *about;
  int64_t channels, h, w;
  int64_t step[3]; /* elements between channels, rows, columns */
  const char *caption;
} Image;

static double at(const Image *m, int64_t k, int64_t y, int64_t x) {
  return tensor_number(m->tensor, k * m->step[0] + y * m->step[1] + x * m->step[2]);
}

static void set(Picture *p, int64_t y, int64_t x, Rgb c) {
  uint8_t *q = p->rgb + ((size_t)y * (size_t)p->width + (size_t)x) * 3;
  q[0] = c.r, q[1] = c.g, q[2] = c.b;
}

static const Rgb not_a_number = {255, 0, 255};

static Picture *new_picture(const Image *m) { return picture_new(m->ctx, (int)m->w, (int)m->h); }

/* ---- labels ------------------------------------------------------------------------------------------------------ */

enum { MOST_CLASSES = 65536 };

static int64_t label_at(const Image *m, int64_t y, int64_t x) {
  int64_t best = 0;
  if (m->channels == 1) {
    double v = at(m, 0, y, x);
    return v >= 0 && v < (double)MOST_CLASSES ? (int64_t)v : -1;
  }
  for (int64_t k = 1; k < m->channels; k++)
    if (at(m, k, y, x) > at(m, best, y, x)) best = k;
  return best;
}

static const char *class_name(const Image *m, int64_t class) {
  const char *p = described_get(m->about, "classes", "");
  bool only_count = *p && p[strspn(p, "0123456789")] == 0;
  for (int64_t i = 0; !only_count && *p; i++) {
    size_t n = strcspn(p, ",");
    if (i == class) return ctx_strndup(m->ctx, p, n);
    p += n + (p[n] == ',');
  }
  return ctx_format(m->ctx, "class %lld", (long long)class);
}

/* "road 51%, sky 20%, car 9%": the three largest. */
static const char *label_caption(const Image *m, uint32_t *count) {
  Text t = {.ctx = m->ctx};
  for (int n = 0; n < 3; n++) {
    int64_t most = 0;
    for (int64_t i = 1; i < MOST_CLASSES; i++)
      if (count[i] > count[most]) most = i;
    if (count[most] == 0) break;
    text_add(&t, "%s%s %.0f%%", n ? ", " : "", class_name(m, most), 100.0 * count[most] / (double)(m->h * m->w));
    count[most] = 0;
  }
  return t.text ? t.text : "no labels";
}

static Picture *render_labels(Image *m) {
  Picture *p = new_picture(m);
  uint32_t *count = ctx_array(m->ctx, MOST_CLASSES, sizeof *count);
  Rgb *colour = ctx_array(m->ctx, MOST_CLASSES, sizeof *colour);
  for (int64_t y = 0; y < m->h; y++)
    for (int64_t x = 0; x < m->w; x++) {
      int64_t label = label_at(m, y, x);
      if (label >= 0 && count[label]++ == 0) colour[label] = colour_of_class(label);
      set(p, y, x, label < 0 ? not_a_number : colour[label]);
    }
  m->caption = label_caption(m, count);
  return p;
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

static void need_channels(const Image *m, int64_t least, int64_t most) {
  if (m->channels >= least && m->channels <= most) return;
  ctx_fail(m->ctx, NULL, "output \"%s\" has %lld channels; \"%s\" wants %s", m->name, (long long)m->channels,
           m->about->kind,
           most == 3       ? "3"
           : least == most ? "1"
                           : "1 or 2");
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* The range without its outermost 2 percent at each end; false if no number is finite. */
static bool usual_range(const Image *m, double *low, double *high) {
  double *v = ctx_array(m->ctx, (size_t)(m->h * m->w), sizeof *v);
  size_t n = 0;
  for (int64_t y = 0; y < m->h; y++)
    for (int64_t x = 0; x < m->w; x++)
      if (isfinite(at(m, 0, y, x))) v[n++] = at(m, 0, y, x);
  if (n == 0) return false;
  qsort(v, n, sizeof *v, by_value);
  *low = v[n / 50];
  *high = v[n - 1 - n / 50];
  return true;
}

static Picture *render_depth(Image *m) {
  enum { STEPS = 1024 };
  need_channels(m, 1, 1);
  Picture *p = new_picture(m);
  Rgb colour[STEPS];
  for (int i = 0; i < STEPS; i++) colour[i] = colour_of_number(i / (double)(STEPS - 1));
  double low = 0, high = 1;
  const char *unit = described_get(m->about, "unit", "");
  bool any = usual_range(m, &low, &high);
  m->caption = any ? ctx_format(m->ctx, "%.3g - %.3g%s%s", low, high, *unit ? " " : "", unit) : "no finite number";
  for (int64_t y = 0; y < m->h; y++)
    for (int64_t x = 0; x < m->w; x++) {
      double v = at(m, 0, y, x), part = high > low ? (v - low) / (high - low) : 0.5;
      set(p, y, x, isfinite(v) ? colour[(int)(fmin(1, fmax(0, part)) * (STEPS - 1))] : not_a_number);
    }
  return p;
}

static Picture *render_normals(Image *m) {
  need_channels(m, 3, 3);
  Picture *p = new_picture(m);
  m->caption = "x y z as red green blue";
  for (int64_t y = 0; y < m->h; y++)
    for (int64_t x = 0; x < m->w; x++) {
      double v[3] = {at(m, 0, y, x), at(m, 1, y, x), at(m, 2, y, x)};
      double length = sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]), scale = length > 0 ? 127.5 / length : 0;
      Rgb c = {(uint8_t)(128 + v[0] * scale * 0.999), (uint8_t)(128 + v[1] * scale * 0.999),
               (uint8_t)(128 + v[2] * scale * 0.999)};
      set(p, y, x, isfinite(length) ? c : not_a_number);
    }
  return p;
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

/* Are all numbers probabilities already? */
static bool within_unit(const Image *m) {
  for (int64_t y = 0; y < m->h; y++)
    for (int64_t x = 0; x < m->w; x++)
      if (at(m, 0, y, x) < 0 || at(m, 0, y, x) > 1) return false;
  return true;
}

static Picture *render_probability(Image *m, bool dark) {
  need_channels(m, 1, 2);
  Picture *p = new_picture(m);
  bool ready = m->channels == 1 && within_unit(m);
  double inside = 0;
  for (int64_t y = 0; y < m->h; y++)
    for (int64_t x = 0; x < m->w; x++) {
      double v = m->channels == 2 ? sigmoid(at(m, 1, y, x) - at(m, 0, y, x))
                 : ready          ? at(m, 0, y, x)
                                  : sigmoid(at(m, 0, y, x));
      uint8_t grey = (uint8_t)(255 * (isnan(v) ? 0 : dark ? 1 - v : v) + 0.5);
      set(p, y, x, isnan(v) ? not_a_number : (Rgb){grey, grey, grey});
      inside += v > 0.5;
    }
  m->caption = ctx_format(m->ctx, "%.1f%% above one half", 100 * inside / (double)(m->h * m->w));
  return p;
}

static Picture *render_mask(Image *m) { return render_probability(m, false); }
static Picture *render_edge(Image *m) { return render_probability(m, true); }

/* ---- which kind -------------------------------------------------------------------------------------------------- */

static const struct {
  const char *name;
  Picture *(*render)(Image *m);
  const char *keys[3];
} kinds[] = {
    {"labels", render_labels, {"layout", "classes", NULL}},
    {"depth", render_depth, {"layout", "unit", NULL}},
    {"normals", render_normals, {"layout", NULL}},
    {"mask", render_mask, {"layout", NULL}},
    {"edge", render_edge, {"layout", NULL}},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static int kind_of(const char *text) {
  text += strspn(text, " \t\n");
  size_t n = strcspn(text, " \t\n");
  for (int i = 0; i < KINDS; i++)
    if (strlen(kinds[i].name) == n && strncmp(kinds[i].name, text, n) == 0) return i;
  return -1;
}

bool render_known(const char *text) { return kind_of(text) >= 0; }

/* [1,C,H,W], [C,H,W], [H,W], or with channels last. Label numbers [1,H,W] are one channel in either layout. */
static void see_as_image(Image *m) {
  const Tensor *t = m->tensor;
  const char *layout = described_get(m->about, "layout", "NCHW");
  const int64_t *d = t->dim;
  int rank = t->rank;
  if (strcmp(layout, "NCHW") != 0 && strcmp(layout, "NHWC") != 0)
    ctx_fail(m->ctx, NULL, "output \"%s\": layout=%s: it is NCHW or NHWC", m->name, layout);
  bool last = strcmp(layout, "NHWC") == 0 && !(rank == 3 && d[0] == 1);
  if (rank == 4 && d[0] == 1) d++, rank--;
  if (rank == 2)
    m->channels = 1, m->h = d[0], m->w = d[1], m->step[1] = d[1], m->step[2] = 1;
  else if (rank == 3 && last)
    m->channels = d[2], m->h = d[0], m->w = d[1], m->step[0] = 1, m->step[2] = d[2];
  else if (rank == 3)
    m->channels = d[0], m->h = d[1], m->w = d[2], m->step[0] = d[1] * d[2], m->step[2] = 1;
  m->step[1] = m->w * m->step[2];
  if (m->channels < 1 || m->h < 1 || m->w < 1 || m->h > PICTURE_SIDE || m->w > PICTURE_SIDE) {
    Shape s = shape_of(t->rank, t->dim);
    ctx_fail(m->ctx, NULL, "output \"%s\", %s, cannot be shown as a picture", m->name,
             shape_text(m->ctx, t->dtype, &s));
  }
}

Picture *render_output(Ctx *c, const char *name, const char *text, const Tensor *t, const char **caption) {
  int kind = kind_of(text);
  const char *about = ctx_format(c, "moecc.output.%s", name);
  if (kind < 0)
    ctx_fail(c, NULL, "%s: \"%s\" is not a kind of output (labels, depth, normals, mask, edge)", about, text);
  Described d = described_parse(c, about, text, kinds[kind].keys);
  Image m = {.ctx = c, .name = name, .tensor = t, .about = &d};
  see_as_image(&m);
  Picture *p = kinds[kind].render(&m);
  if (caption) *caption = m.caption;
  return p;
}

/* ---- side by side ------------------------------------------------------------------------------------------------ */

static void paste(Picture *sheet, const Picture *p, int x, int y) {
  for (int row = 0; row < p->height; row++)
    memcpy(sheet->rgb + ((size_t)(y + row) * (size_t)sheet->width + (size_t)x) * 3,
           p->rgb + (size_t)row * (size_t)p->width * 3, (size_t)p->width * 3);
}

/* As much of the text as fits into a width. */
static const char *cut(Ctx *c, const char *text, int width, int size) {
  size_t fits = (size_t)(width / (GLYPH_WIDTH * size));
  return strlen(text) <= fits ? text : ctx_format(c, "%s..", ctx_strndup(c, text, fits > 2 ? fits - 2 : 0));
}

/* The picture within a cell, its proportions kept. */
static const Picture *fit(Ctx *c, const Picture *p, int width, int height) {
  int64_t w = (int64_t)p->width * height / p->height, h = height;
  if (w > width) {
    w = width;
    h = (int64_t)p->height * width / p->width;
  }
  return picture_resize(c, p, w > 0 ? (int)w : 1, h > 0 ? (int)h : 1);
}

Picture *contact_sheet(Ctx *c, size_t n, const Picture *const *pictures, const char *const *captions) {
  enum { GAP = 8, COLUMNS = 3, CELL = 640 };
  const Rgb ink = {40, 40, 40};
  if (n == 0) ctx_fail(c, NULL, "a sheet of no pictures");
  const Picture *last = pictures[n - 1]; /* outputs are alike; the first picture is the input */
  int width = last->width < CELL ? last->width : CELL;
  int height = (int)((int64_t)last->height * width / last->width), size = width >= 300 ? 2 : 1;
  if (height < 1 || height > 4 * CELL) height = width;
  size_t columns = n < COLUMNS ? n : COLUMNS, rows = (n + columns - 1) / columns;
  if (rows > 1000) ctx_fail(c, NULL, "a sheet of %zu pictures is too large", n);
  int line = 2 * GAP + GLYPH_HEIGHT * size;
  Picture *sheet = picture_new(c, GAP + (int)columns * (width + GAP), GAP + (int)rows * (height + line));
  memset(sheet->rgb, 255, (size_t)sheet->width * (size_t)sheet->height * 3);
  for (size_t i = 0; i < n; i++) {
    int x = GAP + (int)(i % columns) * (width + GAP), y = GAP + (int)(i / columns) * (height + line);
    const Picture *shown = fit(c, pictures[i], width, height);
    paste(sheet, shown, x + (width - shown->width) / 2, y + (height - shown->height) / 2);
    draw_text(sheet, x, y + height + GAP / 2, size, ink, cut(c, captions[i], width, size));
  }
  return sheet;
}
