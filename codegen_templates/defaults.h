/* What a template sees when it is compiled alone; emitted kernels get the same headers from N_kernels.h. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "moecc_rt.h"
#include "moecc_simd.h"
#include "moecc_math.h"
#include "moecc_rows.h"
#include "moecc_gemm.h"
#include "moecc_depthwise.h"
#include "moecc_resize_conv.h"
