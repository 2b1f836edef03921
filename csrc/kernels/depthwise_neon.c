#include "kernels/depthwise.h"
#include "kernels/isa_neon.h"

#ifdef GAP_ISA
#define DW_M 4
#define GRAD_M 2
#define GRAD_ACC 7
#include "kernels/depthwise.inc"
#endif
