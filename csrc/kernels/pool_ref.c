#include "kernels/pool.h"

#include "kernels/isa_ref.h"
#ifdef GAP_ISA
#include "kernels/pool.inc"
#endif
