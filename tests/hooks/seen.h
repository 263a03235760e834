// What the hooks have counted, as JSON: "kernels" (name, launch shapes, launches, blocks, blocks run, threads of a block, dynamic shared memory) and "traffic" (kernel, file, line, space, access, bytes,
// requests, lanes, moved, ideal), one entry for each line, direction and width of access.
#pragma once
#include <nlohmann/json.hpp>

namespace vg::test {

nlohmann::json seen();

}  // namespace vg::test
