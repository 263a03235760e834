// The tile registers of x86-64 servers (AMX): Linux gives their 8 KiB a thread only to processes that ask.
#pragma once

namespace vg::os {

// Asks, for the whole process; false where there are none to be had.
bool request_tile_registers();

}  // namespace vg::os
