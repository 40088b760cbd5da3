/* PNG and JPEG files as rows of RGB. Both libraries leave through longjmp when a file is damaged; what they hold is
 * registered with ctx_defer first, so that an error of ours (memory, too large a picture) releases it as well. */
#include "io/io.h"

#include <errno.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <png.h>

Picture *picture_new(Ctx *c, int width, int height) {
  if (width < 1 || height < 1 || width > PICTURE_SIDE || height > PICTURE_SIDE ||
      (int64_t)width * height > PICTURE_PIXELS)
    ctx_fail(c, NULL, "a picture of %d x %d pixels is more than is supported (%d on a side, %d in all)", width, height,
             PICTURE_SIDE, PICTURE_PIXELS);
  Picture *p = ctx_alloc(c, sizeof *p);
  *p = (Picture){width, height, ctx_array(c, (size_t)width * (size_t)height, 3)};
  return p;
}

static uint8_t *row_of(const Picture *p, int y) { return p->rgb + (size_t)y * (size_t)p->width * 3; }

/* A file that is being read or written, and the library's state. */
typedef struct {
  FILE *file;
  png_structp png;
  png_infop info;
  bool writing, jpeg_open;
  struct jpeg_decompress_struct jpeg;
  struct jpeg_error_mgr errors;
  struct jpeg_progress_mgr progress;
  jmp_buf leave;
  char message[JMSG_LENGTH_MAX];
} Open;

static void release(void *arg) {
  Open *o = arg;
  if (o->png && o->writing)
    png_destroy_write_struct(&o->png, &o->info);
  else if (o->png)
    png_destroy_read_struct(&o->png, &o->info, NULL);
  if (o->jpeg_open) jpeg_destroy_decompress(&o->jpeg);
  if (o->file) (void)fclose(o->file);
  o->png = NULL, o->jpeg_open = false, o->file = NULL;
}

static Open *open_file(Ctx *c, const char *path, const char *mode) {
  Open *o = ctx_alloc(c, sizeof *o);
  o->writing = *mode == 'w';
  o->file = fopen(path, mode);
  if (!o->file)
    ctx_fail_status(c, o->writing ? EXIT_MACHINE : EXIT_MODEL, "%s: cannot be opened: %s", path, strerror(errno));
  ctx_defer(c, release, o);
  return o;
}

static void done(Ctx *c, Open *o) {
  ctx_undefer(c, release, o);
  release(o);
}

/* ---- PNG ------------------------------------------------------------------------------------------------------------
 */

static void on_png_error(png_structp png, png_const_charp message) {
  Open *o = png_get_error_ptr(png);
  snprintf(o->message, sizeof o->message, "%s", message);
  longjmp(o->leave, 1);
}

static void on_png_warning(png_structp png, png_const_charp message) { (void)png, (void)message; }

/* Reads as far as the size, and asks for 8-bit RGB. False: damaged. */
static bool png_start(Open *o) {
  if (setjmp(o->leave)) return false;
  png_init_io(o->png, o->file);
  png_set_user_limits(o->png, PICTURE_SIDE, PICTURE_SIDE);
  png_set_chunk_malloc_max(o->png, 1 << 24);
  png_read_info(o->png, o->info);
  png_set_scale_16(o->png);
  png_set_expand(o->png);
  png_set_gray_to_rgb(o->png);
  png_set_strip_alpha(o->png);
  (void)png_set_interlace_handling(o->png);
  png_read_update_info(o->png, o->info);
  return true;
}

static bool png_rows(Open *o, png_bytepp rows) {
  if (setjmp(o->leave)) return false;
  png_read_image(o->png, rows);
  png_read_end(o->png, NULL);
  return true;
}

static png_bytepp rows_of(Ctx *c, const Picture *p) {
  png_bytepp rows = ctx_array(c, (size_t)p->height, sizeof *rows);
  for (int y = 0; y < p->height; y++) rows[y] = row_of(p, y);
  return rows;
}

static Picture *read_png(Ctx *c, const char *path) {
  Open *o = open_file(c, path, "rb");
  o->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, o, on_png_error, on_png_warning);
  if (o->png) o->info = png_create_info_struct(o->png);
  if (!o->info) ctx_fail_status(c, EXIT_MACHINE, "%s: no memory", path);
  if (!png_start(o)) ctx_fail(c, NULL, "%s: a damaged PNG: %s", path, o->message);
  Picture *p = picture_new(c, (int)png_get_image_width(o->png, o->info), (int)png_get_image_height(o->png, o->info));
  if (png_get_rowbytes(o->png, o->info) != (size_t)p->width * 3)
    ctx_fail(c, NULL, "%s: a PNG of a kind that is not supported", path);
  if (!png_rows(o, rows_of(c, p))) ctx_fail(c, NULL, "%s: a damaged PNG: %s", path, o->message);
  done(c, o);
  return p;
}

static bool png_save(Open *o, const Picture *p, png_bytepp rows) {
  if (setjmp(o->leave)) return false;
  png_init_io(o->png, o->file);
  png_set_IHDR(o->png, o->info, (png_uint_32)p->width, (png_uint_32)p->height, 8, PNG_COLOR_TYPE_RGB,
               PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_write_info(o->png, o->info);
  png_write_image(o->png, rows);
  png_write_end(o->png, NULL);
  return fflush(o->file) == 0;
}

void picture_write(Ctx *c, const char *path, const Picture *p) {
  png_bytepp rows = rows_of(c, p);
  Open *o = open_file(c, path, "wb");
  o->png = png_create_write_struct(PNG_LIBPNG_VER_STRING, o, on_png_error, on_png_warning);
  if (o->png) o->info = png_create_info_struct(o->png);
  bool good = o->info && png_save(o, p, rows);
  FILE *f = o->file;
  o->file = NULL;
  good = fclose(f) == 0 && good;
  if (!good) {
    (void)remove(path);
    ctx_fail_status(c, EXIT_MACHINE, "%s: writing failed; is the disk full?", path);
  }
  done(c, o);
}

/* ---- JPEG -------------------------------------------------------------------------------------------------------- */

static void on_jpeg_error(j_common_ptr jpeg) {
  Open *o = jpeg->client_data;
  jpeg->err->format_message(jpeg, o->message);
  longjmp(o->leave, 1);
}

static void on_jpeg_message(j_common_ptr jpeg) {
  Open *o = jpeg->client_data;
  jpeg->err->format_message(jpeg, o->message);
}

/* A small file can ask for thousands of passes over a large picture. */
static void on_jpeg_progress(j_common_ptr jpeg) {
  Open *o = jpeg->client_data;
  if (((j_decompress_ptr)jpeg)->input_scan_number <= 100) return;
  snprintf(o->message, sizeof o->message, "it has more than 100 scans");
  longjmp(o->leave, 1);
}

static bool jpeg_start(Open *o) {
  if (setjmp(o->leave)) return false;
  o->jpeg.err = jpeg_std_error(&o->errors);
  o->errors.error_exit = on_jpeg_error;
  o->errors.output_message = on_jpeg_message;
  o->jpeg.client_data = o;
  jpeg_create_decompress(&o->jpeg);
  o->jpeg_open = true;
  o->progress.progress_monitor = on_jpeg_progress;
  o->jpeg.progress = &o->progress;
  jpeg_stdio_src(&o->jpeg, o->file);
  (void)jpeg_read_header(&o->jpeg, TRUE);
  o->jpeg.out_color_space = JCS_RGB;
  jpeg_calc_output_dimensions(&o->jpeg);
  return true;
}

static bool jpeg_rows(Open *o, const Picture *p) {
  if (setjmp(o->leave)) return false;
  (void)jpeg_start_decompress(&o->jpeg);
  while (o->jpeg.output_scanline < o->jpeg.output_height) {
    JSAMPROW row = row_of(p, (int)o->jpeg.output_scanline);
    (void)jpeg_read_scanlines(&o->jpeg, &row, 1);
  }
  (void)jpeg_finish_decompress(&o->jpeg);
  return true;
}

static Picture *read_jpeg(Ctx *c, const char *path) {
  Open *o = open_file(c, path, "rb");
  if (!jpeg_start(o)) ctx_fail(c, NULL, "%s: a damaged JPEG: %s", path, o->message);
  if (o->jpeg.output_width > PICTURE_SIDE || o->jpeg.output_height > PICTURE_SIDE)
    ctx_fail(c, NULL, "%s: %u x %u pixels are more than is supported", path, o->jpeg.output_width,
             o->jpeg.output_height);
  Picture *p = picture_new(c, (int)o->jpeg.output_width, (int)o->jpeg.output_height);
  if (!jpeg_rows(o, p)) ctx_fail(c, NULL, "%s: a damaged JPEG: %s", path, o->message);
  if (o->errors.num_warnings > 0) ctx_fail(c, NULL, "%s: a damaged JPEG: %s", path, o->message);
  done(c, o);
  return p;
}

/* ---- either ------------------------------------------------------------------------------------------------------ */

static const unsigned char png_start_bytes[4] = {0x89, 'P', 'N', 'G'}, jpeg_start_bytes[3] = {0xff, 0xd8, 0xff};

/* 'p', 'j', or 0; -1, with errno, if the file could not be read. */
static int kind_of(const char *path) {
  unsigned char start[4] = {0};
  FILE *f = fopen(path, "rb");
  if (!f) return -1;
  size_t n = fread(start, 1, sizeof start, f);
  (void)fclose(f);
  if (n == 4 && memcmp(start, png_start_bytes, 4) == 0) return 'p';
  return n == 4 && memcmp(start, jpeg_start_bytes, 3) == 0 ? 'j' : 0;
}

bool picture_is(const char *path) { return kind_of(path) > 0; }

Picture *picture_read(Ctx *c, const char *path) {
  int kind = kind_of(path);
  if (kind < 0) ctx_fail(c, NULL, "%s: cannot be read: %s", path, strerror(errno));
  if (kind == 0) ctx_fail(c, NULL, "%s: neither a PNG nor a JPEG", path);
  return kind == 'p' ? read_png(c, path) : read_jpeg(c, path);
}
