#include "kernels/depthwise.h"
#include "kernels/isa_ref.h"

#ifdef GAP_ISA
#define DW_M 4
#define GRAD_M 1
#define GRAD_ACC 1
#include "kernels/depthwise.inc"
#endif
