/* Data files: arrays (.npy) and pictures (PNG, JPEG), and how pictures become inputs and outputs become pictures.
 *
 * Files are hostile until checked: sizes are bounded before memory is asked for, and a damaged file ends in ctx_fail
 * with its name. Everything returned lies in the arena.
 */
#ifndef MOECC_IO_H
#define MOECC_IO_H

#include "compiler.h"

/* ---- text_file.c ------------------------------------------------------------------------------------------------ */

char *text_file_read(Ctx *c, const char *path, size_t *bytes); /* all of it, and a zero; leaves with EXIT_MACHINE */
/* A file beside the one that is wanted, begun before the work and put in its place at the end: whole or not at all. What
 * is there and no plain file (a device, a pipe) is written to and not replaced: *making is NULL. */
FILE *text_file_begin(Ctx *c, const char *path, char **making);
void text_file_finish(Ctx *c, FILE *f, const char *path, char *making, const char *text);

/* ---- npy.c ------------------------------------------------------------------------------------------------------- */

/* Reads an array of any numeric type, up to 8 dimensions, C order; bfloat16 is 2 raw bytes ("V2"), as NumPy writes it.
 */
Tensor *npy_read(Ctx *c, const char *path);
void npy_write(Ctx *c, const char *path, const Tensor *t);
/* "f4" and the like, as in .npy files; NULL for types that have none. */
const char *dtype_npy(DType t);

/* ---- picture.c: files -------------------------------------------------------------------------------------------- */

enum { PICTURE_SIDE = 32768, PICTURE_PIXELS = 1 << 26 }; /* larger ones are refused */

/* Rows of 3 bytes per pixel: red, green, blue. */
typedef struct {
  int width, height;
  uint8_t *rgb;
} Picture;

Picture *picture_new(Ctx *c, int width, int height);            /* black */
bool picture_is(const char *path);                              /* do the file's first bytes say PNG or JPEG? */
Picture *picture_read(Ctx *c, const char *path);                /* PNG or JPEG; alpha is dropped, 16 bits become 8 */
void picture_write(Ctx *c, const char *path, const Picture *p); /* PNG */

/* ---- resize.c ---------------------------------------------------------------------------------------------------- */

/* The box [x, x+w) × [y, y+h) of p, in pixels and fractions of them, as width × height pixels of 3 floats (0 … 255).
 * Enlarging is bilinear; reducing averages over what a pixel covers (a triangle), so nothing aliases. */
float *picture_resample(Ctx *c, const Picture *p, double x, double y, double w, double h, int width, int height);
Picture *picture_resize(Ctx *c, const Picture *p, int width, int height);

/* ---- image_input.c: pictures as inputs -----------------------------------------------------------------------------
 */

/* moecc.input.NAME = "image layout=NCHW color=RGB mean=0.485,0.456,0.406 std=0.229,0.224,0.225 scale=255
 * resize=stretch"; what is given here is also what is meant when a key, or all of it, is missing. */
typedef struct {
  bool channels_last; /* layout=NHWC */
  bool bgr;           /* color=BGR; a one-channel input gets the luminance */
  bool crop;          /* resize=crop: the middle, unstretched; else the whole picture, stretched */
  float mean[3], std[3];
  float scale; /* an element is (byte/scale - mean)/std; integer inputs get the bytes as they are */
} ImageInput;
/* text NULL: all defaults, the layout being found from the shape. name is for messages. */
ImageInput image_input_parse(Ctx *c, const char *name, const char *text, int rank, const int64_t *dim);
/* dim: [1,3,H,W], [1,H,W,3], or without the 1; 1 instead of 3 for grey. */
Tensor *image_to_tensor(Ctx *c, const Picture *p, const ImageInput *format, DType t, int rank, const int64_t *dim);

/* ---- render.c: outputs as pictures ---------------------------------------------------------------------------------
 */

/* An output as a picture, by moecc.output.NAME:
 *   labels [classes=A,B,…]  scores [1,C,H,W] (the largest wins) or label numbers [1,H,W]; a colour for each class
 *   depth [unit=m]          one channel; dark is near; the range is that of all but the outermost 2 percent
 *   normals                 three channels, as red, green, blue
 *   mask, edge              one channel (two: the second against the first); scores become probabilities; edges are
 * dark layout=NHWC if channels come last. *caption (may be NULL) says what is seen, the range or the classes. */
Picture *render_output(Ctx *c, const char *name, const char *text, const Tensor *t, const char **caption);
bool render_known(const char *text); /* is it one of these kinds? */

/* Pictures in rows of three, each within a cell of the last one's proportions, with a line of text under each. */
Picture *contact_sheet(Ctx *c, size_t n, const Picture *const *pictures, const char *const *captions);

/* ---- colour.c ---------------------------------------------------------------------------------------------------- */

typedef struct {
  uint8_t r, g, b;
} Rgb;
Rgb colour_of_class(int64_t class); /* neighbours differ in hue and lightness; class 0 is dark */
Rgb colour_of_number(double x);     /* 0 … 1: from dark violet to light yellow, lightness rising evenly */

/* ---- font.c ------------------------------------------------------------------------------------------------------ */

enum { GLYPH_WIDTH = 4, GLYPH_HEIGHT = 7 }; /* with the gap to the next */
/* Writes text at (x, y), each dot `size` pixels wide, cut at the picture's edges. Beyond ASCII: '?'. */
void draw_text(Picture *p, int x, int y, int size, Rgb colour, const char *text);

/* ---- options.c: "kind key=value key=value" ----------------------------------------------------------------------- */

typedef struct {
  const char *key, *value;
} Pair;
typedef struct {
  const char *kind;
  Pair *pair;
  size_t n;
} Described;
/* Keys may be given once, and must be among `keys` (ended by NULL). about is for messages. */
Described described_parse(Ctx *c, const char *about, const char *text, const char *const *keys);
const char *described_get(const Described *d, const char *key, const char *fallback);

#endif
