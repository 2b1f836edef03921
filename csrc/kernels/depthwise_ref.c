#include "core/compiler.h"
#include "kernels/depthwise.h"
#include "kernels/isa_ref.h"

#ifdef GAP_ISA
#define ROWS_M 4
#define ROWS_M2 4
#define GRAD_M 1
#define GRAD_ACC 1
#include "kernels/depthwise.inc"
#endif
