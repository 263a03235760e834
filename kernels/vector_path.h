// Which vector instructions the cpu kernels may use: normally the best that the machine has; less on request (VG_CPU, read by the programs), to
// see what another machine would do, or to compare with an engine that is held back in the same way.
#pragma once
#include <string>

namespace vg {

// "amx" (AVX-512 and the matrix unit), "avx512", "avx2", "sse4", "neon", or "scalar" (no vector instructions beyond the compiler's own); "": the
// best. Call before work starts.
// Throws invalid_argument for other names and unsupported where this machine or this build has none of the kind.
void choose_vector_path(const std::string& name);
std::string vector_path();  // the name of the one in use

}  // namespace vg
