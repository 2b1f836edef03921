#include "kernels/act.h"
#include "kernels/stream.h"

#include "kernels/isa_ref.h"
#ifdef GAP_ISA
#include "kernels/stream.inc"
#endif
