#include "core/compiler.h"
#include "kernels/depthwise.h"
#include "kernels/isa_avx2.h"

#ifdef GAP_ISA
#define ROWS_M 4
#define ROWS_M2 4
#define GRAD_M 2
#define GRAD_ACC 7
#define GRAD_WHOLE
#include "kernels/depthwise.inc"
#include "kernels/isa_end.h"
#endif
