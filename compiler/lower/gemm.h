/* What all lowerings onto the matrix multiplication of runtime/moecc_gemm.h share: the choice of tiles, the packing of
 * weights into panels, and biases as part of a node's fused expression. */
#ifndef MOECC_LOWER_GEMM_H
#define MOECC_LOWER_GEMM_H

#include "loops.h"

/* Rows and columns of a tile; columns is also the width of the weight panels. */
typedef struct {
  int mr, nr;
  int block; /* rows of a block in percent of what gemm_block says otherwise; 0: just that */
} Tile;
/* The tile for a product of so many rows and columns, each a sum of `depth`, in a kernel (its template's name), which
 * is called next: as measured (lower/tuning.h) if it was, else by the model. */
Tile gemm_tile(Program *p, const char *kernel, int64_t rows, int64_t columns, int64_t depth);
/* The one that takes the fewest cycles by a small model of the target, of those with panels no wider than `widest`. */
Tile gemm_tile_model(const Target *t, int64_t rows, int64_t columns, int64_t widest);
/* How wide a panel of so many rows may be for a unit to have room for it. */
int64_t gemm_widest(const Program *p, int64_t depth);
/* Cycles, by that model, for one step of the sums of so many rows and columns. */
double gemm_cost(const Target *t, Tile tile, int64_t rows, int64_t columns);
/* Rows of `length` floats that share a panel before the next is read: what half the L2 cache holds, and few enough that
 * threads find work. */
int64_t gemm_block(const Target *t, Tile tile, int64_t rows, int64_t length, int64_t columns);

/* Adds to step s the panels of a constant matrix W with k rows and n columns, element (i, j) of expert e at
 * offset + e * expert + i * k_stride + j * n_stride of the source: panels of tile.nr columns, k ascending, the last panel
 * filled up with zeros. */
typedef struct {
  int64_t k, n, k_stride, n_stride, offset, expert;
} Matrix;
/* Some of its columns. */
Matrix matrix_columns(Matrix m, int64_t first, int64_t count);
/* How many of n columns go in one weight unit: all, or whole panels of nr, in pieces of about the same width, so that
 * units keep within Program.unit_bytes. each: bytes of weights for a column; more: bytes of a unit besides. */
int64_t gemm_piece(const Program *p, int64_t n, int nr, int64_t each, int64_t more);
/* How much of k the kernel `matmul` works on at a time. */
int64_t gemm_depth(const Target *t, int64_t rows, Matrix m);
void gemm_weight(Program *p, Step *s, const Tensor *source, Matrix m, Tile tile);
int64_t gemm_panel_bytes(Matrix m, Tile tile);
/* The same for a convolution's weights [groups * n][c][taps], from output channel `first` on: row tap * c_count + c of
 * each group's panels. */
void gemm_conv_weight(Program *p, Step *s, const Tensor *source, int64_t first, int64_t groups, int64_t n, int64_t c,
                      int64_t taps, Tile tile);
/* Ids of packings, in UnitPart.layout. */
enum { LAYOUT_PANELS = 1, LAYOUT_CONV_PANELS, LAYOUT_DEPTHWISE, LAYOUT_FLOAT };
/* Element i of a float tensor of any float type. */
float gemm_number(const Tensor *t, int64_t i);

/* y = epilogue(x W): steps of the kernel `matmul` for n, one for each piece of the columns. x: rows by k, rows dense
 * (view of rank 2); y: its rows are y_row elements apart, and `axis` is the dimension of the columns. */
void gemm_matmul(Program *p, const Node *n, const View *x, const Tensor *w, Matrix m, const View *y, int axis,
                 int64_t y_row, const Epilogue *e);
/* A step's argument that writes a piece of a result: `more`, when another piece has begun to. */
void gemm_result(Step *s, const View *y, bool more);
/* For kernels without an epilogue: if n carries an expression, lowers n without it into a value of its own by `lower`,
 * then the expression as an elementwise chain, and returns true. */
bool gemm_unfused(Program *p, Node *n, void (*lower)(Program *p, Node *n));
/* Some columns of a MatMul or Gemm of a constant matrix, y's, into y: dense rows (lower_matmul.c). */
bool matmul_can_part(const Node *n);
void matmul_part(Program *p, Node *n, int64_t first, const View *y);
/* Is n the router of a mixture of so many experts that their scores are better computed piece by piece, by the mixture's
 * own lowering? */
bool moe_has_router(const Program *p, const Node *n);
/* Instantiates a template with holes MR, NR and EPILOGUE as <template>_f32_<tile><suffix>. */
Kernel *gemm_kernel(Program *p, const char *template, Tile tile, const Epilogue *e);
/* A value of the graph that stands for a view: what an expression's operand has to be. */
Value *gemm_value(Program *p, const View *w);
/* The epilogue of a convolution (operands x, weights, bias or none), channels innermost: the bias, then its expression
 * (lower_conv.c). */
Epilogue conv_epilogue(Program *p, Node *n);
/* A copy of n whose expression works on `scale` * result + bias (bias NULL: none), then does what n's own did. */
Node *gemm_with_bias(Program *p, Node *n, double scale, const View *bias);

#endif
