#include "core/compiler.h"
#include "kernels/depthwise.h"
#include "kernels/isa_avx512.h"

#ifdef GAP_ISA
#define ROWS_M 8
#define ROWS_M2 6
#define GRAD_M 4
#define GRAD_ACC 14
#define GRAD_WHOLE
#include "kernels/depthwise.inc"
#include "kernels/isa_end.h"
#endif
