/* Arrays and pictures: what is written comes back, pictures become the right numbers, and damaged files end in an
 * error. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jpeglib.h>

#include "io/io.h"

/* ---- helpers: a test body runs inside a Ctx -------------------------------------------------------------------------
 */

static char path[64];

static ExitStatus run(void (*body)(Ctx *c, void *arg), void *arg, char *message, size_t n) {
  Ctx *c = ctx_new();
  ExitStatus s = ctx_run(c, body, arg);
  if (message) snprintf(message, n, "%s", ctx_message_count(c) ? ctx_message(c, 0) : "");
  ctx_free(c);
  return s;
}

static void must_run(void (*body)(Ctx *c, void *arg), void *arg) {
  char message[400];
  ExitStatus s = run(body, arg, message, sizeof message);
  if (s != EXIT_DONE) fail_msg("%s", message);
}

/* Runs a body that is expected to fail with a message that contains `says`. */
static void must_fail(void (*body)(Ctx *c, void *arg), void *arg, const char *says) {
  char message[400];
  assert_int_equal(run(body, arg, message, sizeof message), EXIT_MODEL);
  if (!strstr(message, says)) fail_msg("\"%s\" does not say \"%s\"", message, says);
}

typedef struct {
  uint8_t *data;
  size_t n;
} Bytes;

static Bytes read_bytes(void) {
  Bytes b = {malloc(1 << 20), 0};
  FILE *f = fopen(path, "rb");
  assert_non_null(f);
  b.n = fread(b.data, 1, 1 << 20, f);
  fclose(f);
  return b;
}

static void write_bytes(const void *data, size_t n) {
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(data, 1, n, f), n);
  assert_int_equal(fclose(f), 0);
}

/* ---- npy --------------------------------------------------------------------------------------------------------- */

static void npy_round_trips(Ctx *c, void *arg) {
  static const int64_t shapes[][4] = {{0}, {5}, {2, 3}, {2, 0, 3}, {1, 2, 3, 2}};
  (void)arg;
  for (DType t = DT_F32; t <= DT_BOOL; t++)
    for (int rank = 0; rank <= 4; rank++) {
      Tensor *a = tensor_new(c, t, rank, shapes[rank], NULL);
      uint8_t *p = tensor_writable(a);
      for (size_t i = 0; i < a->bytes; i++) p[i] = (uint8_t)(t == DT_BOOL ? i % 2 : i * 37 + 1);
      npy_write(c, path, a);
      Tensor *b = npy_read(c, path);
      assert_int_equal(b->dtype, t);
      assert_int_equal(b->rank, rank);
      assert_true(tensor_equal(a, b));
    }
}

static void arrays_come_back(void **state) { (void)state, must_run(npy_round_trips, NULL); }

/* Written by NumPy: {'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), } and 1, 2, 3, 4. */
static size_t numpy_file(uint8_t *out, const char *head, const void *data, size_t bytes, int version) {
  size_t n = 0, length = strlen(head) + 1;
  memcpy(out, "\x93NUMPY", 6);
  out[6] = (uint8_t)version, out[7] = 0;
  out[8] = (uint8_t)(length & 255), out[9] = (uint8_t)(length >> 8), out[10] = out[11] = 0;
  n = version == 1 ? 10 : 12;
  memcpy(out + n, head, length - 1);
  out[n + length - 1] = '\n';
  memcpy(out + n + length, data, bytes);
  return n + length + bytes;
}

static void read_npy(Ctx *c, void *arg) {
  Tensor *t = npy_read(c, path);
  if (arg) *(double *)arg = tensor_number(t, tensor_count(t) - 1);
}

static void heads_are_checked(void **state) {
  static const float four[4] = {1, 2, 3, 4};
  static const struct {
    const char *head, *says;
  } cases[] = {
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }", NULL},
      {"{'shape': (2,2), 'fortran_order': False, 'descr': '<f4'}", NULL},
      {"{'descr': '<f4', 'fortran_order': True, 'shape': (4, 1), }", NULL},
      {"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }", "Fortran"},
      {"{'descr': '>f4', 'fortran_order': False, 'shape': (2, 2), }", "big endian"},
      {"{'descr': '<c8', 'fortran_order': False, 'shape': (2,), }", "not supported"},
      {"{'descr': '<U4', 'fortran_order': False, 'shape': (1,), }", "not supported"},
      {"{'descr': '|O', 'fortran_order': False, 'shape': (2,), }", "not supported"},
      {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4,), }", "descr"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }", "24 bytes"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -2), }", "tuple of numbers"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }", "too large"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999,), }", "too large"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,4), }", "8 dimensions"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2", "tuple of numbers"},
      {"{'descr': '<f4', 'fortran_order': False}", "shape"},
      {"{'descr': '<f4', 'shape': (2, 2)}", "fortran_order"},
      {"", "descr"},
  };
  uint8_t file[512];
  (void)state;
  for (int version = 1; version <= 3; version++)
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
      write_bytes(file, numpy_file(file, cases[i].head, four, sizeof four, version));
      double last = 0;
      if (cases[i].says)
        must_fail(read_npy, NULL, cases[i].says);
      else
        must_run(read_npy, &last), assert_true(last == 4);
    }
  write_bytes(file, numpy_file(file, cases[0].head, four, sizeof four, 4));
  must_fail(read_npy, NULL, "unknown version");
}

static void cut_and_changed_arrays_are_survived(void **state) {
  static const float four[4] = {1, 2, 3, 4};
  uint8_t file[512];
  size_t failures = 0;
  (void)state;
  size_t n = numpy_file(file, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }", four, sizeof four, 1);
  for (size_t k = 0; k < n; k++) {
    write_bytes(file, k);
    assert_int_equal(run(read_npy, NULL, NULL, 0), EXIT_MODEL);
  }
  for (size_t k = 0; k < n * 8; k++) {
    file[k / 8] ^= (uint8_t)(1 << k % 8);
    write_bytes(file, n);
    failures += run(read_npy, NULL, NULL, 0) != EXIT_DONE;
    file[k / 8] ^= (uint8_t)(1 << k % 8);
  }
  assert_true(failures > n);
  unlink(path);
  must_fail(read_npy, NULL, "No such file");
}

/* ---- picture files ----------------------------------------------------------------------------------------------- */

static Picture *gradient(Ctx *c, int w, int h) {
  Picture *p = picture_new(c, w, h);
  for (int i = 0; i < w * h; i++)
    p->rgb[3 * i] = (uint8_t)(i % w * 5), p->rgb[3 * i + 1] = (uint8_t)(i / w * 9),
               p->rgb[3 * i + 2] = (uint8_t)(i * 3);
  return p;
}

static void png_round_trip(Ctx *c, void *arg) {
  Picture *p = gradient(c, 23, 17);
  (void)arg;
  picture_write(c, path, p);
  assert_true(picture_is(path));
  Picture *q = picture_read(c, path);
  assert_int_equal(q->width, 23);
  assert_int_equal(q->height, 17);
  assert_memory_equal(p->rgb, q->rgb, 23 * 17 * 3);
}

static void write_jpeg(int w, int h) {
  struct jpeg_compress_struct j;
  struct jpeg_error_mgr e;
  uint8_t row[300];
  FILE *f = fopen(path, "wb");
  assert_true(f && w <= 100);
  j.err = jpeg_std_error(&e);
  jpeg_create_compress(&j);
  jpeg_stdio_dest(&j, f);
  j.image_width = (JDIMENSION)w, j.image_height = (JDIMENSION)h, j.input_components = 3, j.in_color_space = JCS_RGB;
  jpeg_set_defaults(&j);
  jpeg_set_quality(&j, 95, TRUE);
  jpeg_start_compress(&j, TRUE);
  for (int x = 0; x < w; x++) row[3 * x] = 200, row[3 * x + 1] = 100, row[3 * x + 2] = 50;
  JSAMPROW rows[1] = {row};
  for (int y = 0; y < h; y++) jpeg_write_scanlines(&j, rows, 1);
  jpeg_finish_compress(&j);
  jpeg_destroy_compress(&j);
  fclose(f);
}

static void read_picture(Ctx *c, void *arg) {
  Picture *p = picture_read(c, path);
  if (arg) memcpy(arg, p->rgb, 3);
}

static void pictures_come_back(void **state) {
  uint8_t first[3];
  (void)state;
  must_run(png_round_trip, NULL);
  write_jpeg(40, 30);
  assert_true(picture_is(path));
  must_run(read_picture, first);
  assert_true(abs(first[0] - 200) < 4 && abs(first[1] - 100) < 4 && abs(first[2] - 50) < 4);
  write_bytes("GIF89a..", 8);
  assert_false(picture_is(path));
  must_fail(read_picture, NULL, "neither a PNG nor a JPEG");
  unlink(path);
  must_fail(read_picture, NULL, "No such file");
}

/* Every shortened file is an error; every changed byte is survived. */
static void damage(Bytes b) {
  size_t failures = 0;
  for (size_t n = 0; n + 12 < b.n; n += n < 200 ? 1 : 13) { /* a PNG's last chunk carries no pixels */
    write_bytes(b.data, n);
    assert_int_equal(run(read_picture, NULL, NULL, 0), EXIT_MODEL);
  }
  for (size_t i = 0; i < b.n; i++)
    for (int k = 0; k < 3; k++) {
      static const uint8_t change[3] = {0xff, 0x80, 0x01};
      b.data[i] ^= change[k];
      write_bytes(b.data, b.n);
      ExitStatus s = run(read_picture, NULL, NULL, 0);
      assert_true(s == EXIT_DONE || s == EXIT_MODEL);
      failures += s != EXIT_DONE;
      b.data[i] ^= change[k];
    }
  assert_true(failures > 50);
  free(b.data);
}

static void save_gradient(Ctx *c, void *arg) { (void)arg, picture_write(c, path, gradient(c, 23, 17)); }

static void damaged_pictures_are_survived(void **state) {
  (void)state;
  must_run(save_gradient, NULL);
  damage(read_bytes());
  write_jpeg(20, 20);
  damage(read_bytes());
}

static void ask_for_too_much(Ctx *c, void *arg) { (void)arg, picture_new(c, 30000, 30000); }

/* A head that promises a huge picture costs no memory. */
static void huge_pictures_are_refused(void **state) {
  (void)state;
  must_fail(ask_for_too_much, NULL, "30000 x 30000");
  write_jpeg(20, 20);
  Bytes b = read_bytes();
  for (size_t i = 0; i + 9 < b.n; i++)
    if (b.data[i] == 0xff && b.data[i + 1] == 0xc0) memcpy(b.data + i + 5, "\x9c\x40\x9c\x40", 4);
  write_bytes(b.data, b.n);
  must_fail(read_picture, NULL, "40000 x 40000");
  free(b.data);
}

static void write_nowhere(Ctx *c, void *arg) { (void)arg, picture_write(c, "/nonexistent/x.png", gradient(c, 4, 4)); }
static void write_to_full(Ctx *c, void *arg) { (void)arg, picture_write(c, "/dev/full", gradient(c, 400, 400)); }

static void unwritable_is_the_machines_fault(void **state) {
  (void)state;
  assert_int_equal(run(write_nowhere, NULL, NULL, 0), EXIT_MACHINE);
  if (access("/dev/full", W_OK) == 0 && getuid() != 0)
    assert_int_equal(run(write_to_full, NULL, NULL, 0), EXIT_MACHINE);
}

/* ---- resizing ---------------------------------------------------------------------------------------------------- */

static void resizing(Ctx *c, void *arg) {
  (void)arg;
  Picture *p = gradient(c, 24, 20);
  const float *same = picture_resample(c, p, 0, 0, 24, 20, 24, 20);
  for (int i = 0; i < 24 * 20 * 3; i++) assert_true(same[i] == (float)p->rgb[i]);
  static const int sizes[][2] = {{1, 1}, {3, 50}, {100, 7}, {24, 19}, {240, 200}};
  for (int i = 0; i < 24 * 20 * 3; i++) p->rgb[i] = 77;
  for (size_t s = 0; s < 5; s++) {
    const float *flat = picture_resample(c, p, 0, 0, 24, 20, sizes[s][0], sizes[s][1]);
    for (int i = 0; i < sizes[s][0] * sizes[s][1] * 3; i++) assert_true(fabsf(flat[i] - 77) < 1e-3f);
  }
  /* doubling is bilinear at half pixels: 0 100 becomes 0 25 75 100 */
  Picture *two = picture_new(c, 2, 1);
  memset(two->rgb + 3, 100, 3);
  const float *four = picture_resample(c, two, 0, 0, 2, 1, 4, 1);
  assert_true(four[0] == 0 && four[3] == 25 && four[6] == 75 && four[9] == 100);
  /* a chessboard made small is grey, not black or white */
  Picture *board = picture_new(c, 64, 64);
  for (int i = 0; i < 64 * 64; i++) memset(board->rgb + 3 * i, (i % 64 + i / 64) % 2 ? 255 : 0, 3);
  const float *small = picture_resample(c, board, 0, 0, 64, 64, 5, 5);
  for (int i = 0; i < 75; i++) assert_true(fabsf(small[i] - 127.5f) < 4);
}

static void pictures_are_resized(void **state) { (void)state, must_run(resizing, NULL); }

/* ---- pictures as inputs ------------------------------------------------------------------------------------------ */

/* Three vertical stripes, red, green, blue, each 10 wide and 10 high. */
static Picture *stripes(Ctx *c) {
  Picture *p = picture_new(c, 30, 10);
  for (int i = 0; i < 300; i++) p->rgb[3 * i + i % 30 / 10] = 255;
  return p;
}

static double element(const Tensor *t, int64_t i) { return tensor_number(t, i); }

static void as_inputs(Ctx *c, void *arg) {
  (void)arg;
  static const int64_t nchw[] = {1, 3, 10, 30}, nhwc[] = {1, 10, 30, 3}, square[] = {3, 10, 10},
                       grey[] = {1, 1, 10, 30};
  Picture *p = stripes(c);
  ImageInput f = image_input_parse(c, "x", "image mean=0.5 std=0.25 layout=NCHW", 4, nchw);
  Tensor *t = image_to_tensor(c, p, &f, DT_F32, 4, nchw);
  assert_true(element(t, 0) == 2 && element(t, 300) == -2 && element(t, 600) == -2);  /* red */
  assert_true(element(t, 15) == -2 && element(t, 315) == 2 && element(t, 615) == -2); /* green */
  f = image_input_parse(c, "x", "image mean=0 std=1 color=BGR", 4, nhwc);             /* the layout is seen */
  t = image_to_tensor(c, p, &f, DT_F64, 4, nhwc);
  assert_true(f.channels_last && element(t, 0) == 0 && element(t, 2) == 1 && element(t, 29 * 3) == 1);
  f = image_input_parse(c, "x", NULL, 4, nchw);
  t = image_to_tensor(c, p, &f, DT_F32, 4, nchw);
  assert_true(fabs(element(t, 0) - (1 - 0.485) / 0.229) < 1e-6 && fabs(element(t, 600) + 0.406 / 0.225) < 1e-6);
  f = image_input_parse(c, "x", "image mean=0 std=1 scale=1 resize=crop", 3, square);
  t = image_to_tensor(c, p, &f, DT_F32, 3, square);
  for (int i = 0; i < 100; i++) assert_true(element(t, i) < 1e-3 && element(t, 100 + i) > 254.9);
  f.crop = false;
  t = image_to_tensor(c, p, &f, DT_U8, 3, square);
  assert_true(element(t, 0) == 255 && element(t, 105) == 255 && element(t, 209) == 255 && element(t, 9) == 0);
  f = image_input_parse(c, "x", "image mean=0 std=1", 4, grey);
  t = image_to_tensor(c, p, &f, DT_F32, 4, grey);
  assert_true(fabs(element(t, 0) - 0.299) < 1e-6 && fabs(element(t, 15) - 0.587) < 1e-6);
}

static void pictures_become_inputs(void **state) { (void)state, must_run(as_inputs, NULL); }

typedef struct {
  const char *text, *says;
  int64_t dim[4];
} BadInput;

static void parse_input(Ctx *c, void *arg) {
  const BadInput *b = arg;
  (void)image_input_parse(c, "x", b->text, 4, b->dim);
}

static void bad_input_descriptions_are_refused(void **state) {
  static const BadInput bad[] = {
      {"sound", "not a kind of input", {1, 3, 8, 8}},
      {"image layout=CHWN", "NCHW or NHWC", {1, 3, 8, 8}},
      {"image color=YUV", "RGB or BGR", {1, 3, 8, 8}},
      {"image mean=1,2", "one number or three", {1, 3, 8, 8}},
      {"image mean=1,2,3,4", "one number or three", {1, 3, 8, 8}},
      {"image std=0,1,1", "must not be 0", {1, 3, 8, 8}},
      {"image std=nan", "one number or three", {1, 3, 8, 8}},
      {"image mean=a", "one number or three", {1, 3, 8, 8}},
      {"image size=3", "no key \"size\"", {1, 3, 8, 8}},
      {"image mean=1 mean=2", "twice", {1, 3, 8, 8}},
      {"image stretch", "key=value", {1, 3, 8, 8}},
      {"image", "[1,5,8,8]", {1, 5, 8, 8}},
      {"image layout=NHWC", "in that layout", {1, 3, 8, 8}},
      {NULL, "cannot be a picture", {2, 3, 8, 8}},
  };
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) must_fail(parse_input, (void *)(uintptr_t)&bad[i], bad[i].says);
}

/* ---- outputs as pictures ----------------------------------------------------------------------------------------- */

static Tensor *floats(Ctx *c, int rank, const int64_t *dim, const float *v) {
  Tensor *t = tensor_new(c, DT_F32, rank, dim, NULL);
  memcpy(tensor_writable(t), v, t->bytes);
  return t;
}

static bool is_colour(const Picture *p, int i, Rgb c) {
  return p->rgb[3 * i] == c.r && p->rgb[3 * i + 1] == c.g && p->rgb[3 * i + 2] == c.b;
}

static void as_pictures(Ctx *c, void *arg) {
  static const int64_t scores[] = {1, 3, 1, 2}, last[] = {1, 1, 2, 3}, one[] = {1, 1, 2}, flat[] = {1, 2};
  static const float s[] = {0, 5, 1, 4, 2, 3}, d[] = {2, 10}, bad[] = {NAN, 1}, n[] = {0, 1, 0, 0, 3, 0};
  const char *caption;
  (void)arg;
  Picture *p = render_output(c, "seg", "labels classes=sky,road,car", floats(c, 4, scores, s), &caption);
  assert_true(p->width == 2 && p->height == 1);
  assert_true(is_colour(p, 0, colour_of_class(2)) && is_colour(p, 1, colour_of_class(0)));
  assert_string_equal(caption, "sky 50%, car 50%");
  p = render_output(c, "seg", "labels layout=NHWC classes=3", floats(c, 4, last, s), &caption);
  assert_true(is_colour(p, 0, colour_of_class(1)) && is_colour(p, 1, colour_of_class(0)));
  assert_string_equal(caption, "class 0 50%, class 1 50%");
  Tensor *labels = tensor_new(c, DT_I64, 3, one, NULL);
  ((int64_t *)tensor_writable(labels))[1] = 7;
  ((int64_t *)tensor_writable(labels))[0] = -5;
  p = render_output(c, "seg", "labels", labels, NULL);
  assert_true(is_colour(p, 0, (Rgb){255, 0, 255}) && is_colour(p, 1, colour_of_class(7)));
  p = render_output(c, "d", "depth unit=m", floats(c, 2, flat, d), &caption);
  assert_true(is_colour(p, 0, colour_of_number(0)) && is_colour(p, 1, colour_of_number(1)));
  assert_string_equal(caption, "2 - 10 m");
  p = render_output(c, "d", "depth", floats(c, 3, one, bad), &caption);
  assert_true(is_colour(p, 0, (Rgb){255, 0, 255}) && is_colour(p, 1, colour_of_number(0.5)));
  p = render_output(c, "n", "normals", floats(c, 4, scores, n), NULL);
  assert_true(is_colour(p, 0, (Rgb){128, 128, 255}) && is_colour(p, 1, (Rgb){255, 128, 128}));
  p = render_output(c, "m", "mask", floats(c, 3, one, (const float[]){0.2f, 1}), NULL);
  assert_true(is_colour(p, 0, (Rgb){51, 51, 51}) && is_colour(p, 1, (Rgb){255, 255, 255}));
  p = render_output(c, "m", "edge", floats(c, 3, one, (const float[]){-50, 50}), NULL);
  assert_true(is_colour(p, 0, (Rgb){255, 255, 255}) && is_colour(p, 1, (Rgb){0, 0, 0}));
}

static void outputs_become_pictures(void **state) { (void)state, must_run(as_pictures, NULL); }

typedef struct {
  const char *text, *says;
  int rank;
  int64_t dim[4];
} BadOutput;

static void render_bad(Ctx *c, void *arg) {
  const BadOutput *b = arg;
  (void)render_output(c, "y", b->text, tensor_new(c, DT_F32, b->rank, b->dim, NULL), NULL);
}

static void bad_outputs_are_refused(void **state) {
  static const BadOutput bad[] = {
      {"sound", "not a kind of output", 2, {2, 2}},
      {"", "not a kind of output", 2, {2, 2}},
      {"depth unit=m colour=red", "no key", 2, {2, 2}},
      {"depth", "wants 1", 3, {2, 2, 2}},
      {"normals", "wants 3", 3, {1, 2, 2}},
      {"labels", "cannot be shown", 4, {2, 1, 2, 2}},
      {"labels layout=X", "NCHW or NHWC", 3, {1, 2, 2}},
      {"mask", "cannot be shown", 2, {0, 2}},
  };
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) must_fail(render_bad, (void *)(uintptr_t)&bad[i], bad[i].says);
}

static double luminance(Rgb c) {
  return 0.2126 * pow(c.r / 255.0, 2.2) + 0.7152 * pow(c.g / 255.0, 2.2) + 0.0722 * pow(c.b / 255.0, 2.2);
}

static void colours_can_be_told_apart(void **state) {
  (void)state;
  for (int a = 0; a < 24; a++)
    for (int b = 0; b < a; b++) {
      Rgb x = colour_of_class(a), y = colour_of_class(b);
      assert_true(abs(x.r - y.r) + abs(x.g - y.g) + abs(x.b - y.b) > 24);
    }
  for (int i = 1; i <= 64; i++)
    assert_true(luminance(colour_of_number(i / 64.0)) > luminance(colour_of_number((i - 1) / 64.0)));
  assert_true(luminance(colour_of_number(NAN)) == luminance(colour_of_number(0)));
}

static void sheet(Ctx *c, void *arg) {
  (void)arg;
  const Picture *p[3] = {gradient(c, 60, 40), gradient(c, 30, 80), gradient(c, 300, 40)};
  const char *captions[3] = {"one", "a caption much longer than its picture", "\xc3\xa9\x01~"};
  Picture *s = contact_sheet(c, 3, p, captions);
  assert_int_equal(s->width, 8 + 3 * (300 + 8)); /* cells are as large as the last picture */
  assert_int_equal(s->height, 8 + 40 + 16 + 2 * GLYPH_HEIGHT);
  assert_memory_equal(s->rgb + (8 * s->width + 8 + (300 - 60) / 2) * 3, p[0]->rgb, 60 * 3); /* centred */
  bool ink = false;
  for (int i = 0; i < s->width * 3; i++) ink |= s->rgb[(8 + 40 + 8) * s->width * 3 + i] < 100;
  assert_true(ink);
  /* text is cut at every edge */
  for (int x = -20; x < 70; x += 3)
    for (int y = -10; y < 50; y += 3) draw_text((Picture *)(uintptr_t)p[0], x, y, 2, (Rgb){1, 2, 3}, "edge");
}

static void sheets_are_laid_out(void **state) { (void)state, must_run(sheet, NULL); }

int main(void) {
  const char *folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"; /* many small files */
  snprintf(path, sizeof path, "%s/moecc_io_%ld", folder, (long)getpid());
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(arrays_come_back),
      cmocka_unit_test(heads_are_checked),
      cmocka_unit_test(cut_and_changed_arrays_are_survived),
      cmocka_unit_test(pictures_come_back),
      cmocka_unit_test(damaged_pictures_are_survived),
      cmocka_unit_test(huge_pictures_are_refused),
      cmocka_unit_test(unwritable_is_the_machines_fault),
      cmocka_unit_test(pictures_are_resized),
      cmocka_unit_test(pictures_become_inputs),
      cmocka_unit_test(bad_input_descriptions_are_refused),
      cmocka_unit_test(outputs_become_pictures),
      cmocka_unit_test(bad_outputs_are_refused),
      cmocka_unit_test(colours_can_be_told_apart),
      cmocka_unit_test(sheets_are_laid_out),
  };
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  unlink(path);
  return failed;
}
