#include "kernels/act.h"
#include "kernels/stream.h"

#include "kernels/isa_neon.h"
#ifdef GAP_ISA
#include "kernels/stream.inc"
#endif
