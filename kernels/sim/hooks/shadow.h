// What is remembered of each byte and word of a buffer or a shared array: was it ever written, and by whom was it last written and read.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>

namespace vg::simt::hooks {

// Who, and how far it had come.
struct Access {
  std::uint32_t block = 0;  // serial number over all launches; 0: nobody
  std::uint32_t barriers = 0, warp_syncs = 0;
  std::uint32_t site = 0;  // number of the place in the code
  std::uint16_t thread = 0;
};

// Last accesses to one word. Blocks run one after the other and time only goes on, so the latest reader of each kind stands for all earlier ones:
// the latest, the latest of another warp, the latest other lane of its own warp, and the latest of another block. Atomics do not collide with each other.
struct Cell {
  Access write, atomic, read, other_warp, other_lane, other_block;
};

struct FreeMemory {
  void operator()(void* p) const { std::free(p); }
};
// Zeroed; pages that nobody touches cost nothing.
template <class T>
std::unique_ptr<T[], FreeMemory> zeroed(std::size_t n) {
  return std::unique_ptr<T[], FreeMemory>(static_cast<T*>(std::calloc(n ? n : 1, sizeof(T))));
}

struct Region {
  char* begin = nullptr;
  std::size_t bytes = 0;
  bool shared = false;
  std::string name;  // of a shared array: "tile_a (kernels/conv_gemm.cuh:91)"
  // Words of four bytes; bytes from the first smaller or unaligned access on.
  int unit = 4;
  std::unique_ptr<unsigned char[], FreeMemory> written;
  std::unique_ptr<Cell[], FreeMemory> cells;

  Region() = default;
  Region(char* at, std::size_t size, bool is_shared, std::string what)
      : begin(at),
        bytes(size),
        shared(is_shared),
        name(std::move(what)),
        written(zeroed<unsigned char>(size)),
        cells(zeroed<Cell>(size / 4 + 1)) {}

  // Bounds alone.
  Region(char* at, std::size_t size) : begin(at), bytes(size), name("(virtual)") {}

  bool holds(const char* p) const { return p >= begin && p < begin + bytes; }

  void split_words() {
    auto fine = zeroed<Cell>(bytes + 4);
    for (std::size_t i = 0; i < bytes; ++i) {
      const Cell& c = cells[i / 4];
      if (c.write.block | c.atomic.block | c.read.block) fine[i] = c;
    }
    cells = std::move(fine);
    unit = 1;
  }
};

}  // namespace vg::simt::hooks
