// Where the outside comes in: the functions that -fsanitize=thread makes the compiler call, the executor's watch points, and the table of functions of
// the host devices, whose allocations and copies become known buffers and written bytes.
#include <utility>

#include "kernels/sim/hooks/observer.h"
#include "kernels/sim/watch.h"
#include "tensor/device.h"
#include "tensor/os.h"

namespace vg::simt {
namespace watch {

using hooks::observer;

Launching::Launching(const Launch& launch) {
  observer().mutex.lock();
  observer().begin_launch(launch);
}
Launching::~Launching() {
  observer().end_launch();
  observer().mutex.unlock();
}
std::uint64_t blocks_to_run(std::uint64_t blocks) { return observer().blocks_to_run(blocks); }
void block_begins(uint3 block, char* dynamic_shared) { observer().begin_block(block, dynamic_shared); }
void block_ends() { observer().end_block(); }
void shared_array_placed(const SharedArray& array, char* data) { observer().place_shared(array, data); }
void block_synchronised() { observer().block_synchronised(); }
void warp_asked(int warp, unsigned mask, Collective what) { observer().warp_asked(warp, mask, what); }
void reads(int thread, const void* from, std::size_t bytes, const char* file, int line) {
  observer().thread_access(thread, from, bytes, hooks::Kind::read, observer().named_place(file, line));
}
void copy_issued(int thread, void* to, const void* from, const char* file, int line) {
  const std::uintptr_t at = observer().named_place(file, line);
  if (from) observer().thread_access(thread, from, 16, hooks::Kind::read, at);
  observer().thread_access(thread, to, 16, hooks::Kind::write, at);
  observer().mark(to, 16, 0);
}
void copy_arrived(int thread, void* to, const char* file, int line) {
  observer().thread_access(thread, to, 16, hooks::Kind::write, observer().named_place(file, line), false);
}
bool left_out(const Request& request) { return observer().left_out(request); }
bool left_out(const char* file, int line) { return observer().left_out(file, line, "cp.async.wait_group"); }

}  // namespace watch

namespace hooks {
namespace {

const DeviceApi* plain = nullptr;      // of both host devices
constexpr std::size_t kMargin = 4096;  // on both sides of a buffer: a reported store just outside does not also ruin the program

const char* allocate(Device d, std::size_t bytes, void** out) {
  if (d.kind != DeviceKind::sim) return plain->allocate(d, bytes, out);
  if (const char* why = plain->allocate(d, bytes + 2 * kMargin, out)) return why;
  *out = static_cast<char*>(*out) + kMargin;
  const std::lock_guard lock(observer().mutex);
  observer().add_buffer(*out, bytes);
  return nullptr;
}
const char* release(Device d, void* data, std::size_t bytes) {
  if (d.kind != DeviceKind::sim) return plain->release(d, data, bytes);
  const std::lock_guard lock(observer().mutex);
  observer().remove_buffer(data);
  return plain->release(d, static_cast<char*>(data) - kMargin, bytes + 2 * kMargin);
}
const char* copy(void* to, Device to_device, const void* from, Device from_device, std::size_t bytes, void* stream) {
  if (to_device.kind == DeviceKind::sim) {
    const std::lock_guard lock(observer().mutex);
    observer().mark(to, bytes, 1);
  }
  return plain->copy(to, to_device, from, from_device, bytes, stream);
}
const char* clear(Device d, void* data, std::size_t bytes, void* stream) {
  if (d.kind == DeviceKind::sim) {
    const std::lock_guard lock(observer().mutex);
    observer().mark(data, bytes, 1);
  }
  return plain->clear(d, data, bytes, stream);
}

const bool installed = [] {
  plain = &device_api(kSim);
  static const DeviceApi observed = {allocate, release, copy, clear, plain->synchronize, plain->properties, plain->count};
  install_device_api(DeviceKind::sim, &observed);
  install_device_api(DeviceKind::cpu, &observed);  // a copy from the host to sim goes through its source's table
  leave_out(os::environment("VG_SIM_LEAVE_OUT"));
  return true;
}();

}  // namespace
}  // namespace hooks
}  // namespace vg::simt

#define VG_PLACE reinterpret_cast<std::uintptr_t>(__builtin_return_address(0)) - 1  // the call, not what follows it
#define VG_SEEN(ADDRESS, BYTES, KIND)                                                                              \
  ::vg::simt::hooks::observer().access(const_cast<const void*>(static_cast<const volatile void*>(ADDRESS)), BYTES, \
                                       ::vg::simt::hooks::Kind::KIND, VG_PLACE)

#define VG_PLAIN(N)                                                 \
  void __tsan_read##N(void* p) { VG_SEEN(p, N, read); }             \
  void __tsan_write##N(void* p) { VG_SEEN(p, N, write); }           \
  void __tsan_unaligned_read##N(void* p) { VG_SEEN(p, N, read); }   \
  void __tsan_unaligned_write##N(void* p) { VG_SEEN(p, N, write); } \
  void __tsan_volatile_read##N(void* p) { VG_SEEN(p, N, read); }    \
  void __tsan_volatile_write##N(void* p) { VG_SEEN(p, N, write); }

#define VG_ATOMIC_CHANGE(BITS, T, NAME)                         \
  T __tsan_atomic##BITS##_##NAME(volatile T* p, T value, int) { \
    VG_SEEN(p, sizeof(T), atomic);                              \
    return __atomic_##NAME(p, value, __ATOMIC_SEQ_CST);         \
  }
#define VG_ATOMIC(BITS, T)                                                                             \
  T __tsan_atomic##BITS##_load(const volatile T* p, int) {                                             \
    VG_SEEN(p, sizeof(T), atomic);                                                                     \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                                       \
  }                                                                                                    \
  void __tsan_atomic##BITS##_store(volatile T* p, T value, int) {                                      \
    VG_SEEN(p, sizeof(T), atomic);                                                                     \
    __atomic_store_n(p, value, __ATOMIC_SEQ_CST);                                                      \
  }                                                                                                    \
  T __tsan_atomic##BITS##_exchange(volatile T* p, T value, int) {                                      \
    VG_SEEN(p, sizeof(T), atomic);                                                                     \
    return __atomic_exchange_n(p, value, __ATOMIC_SEQ_CST);                                            \
  }                                                                                                    \
  VG_ATOMIC_CHANGE(BITS, T, fetch_add)                                                                 \
  VG_ATOMIC_CHANGE(BITS, T, fetch_sub)                                                                 \
  VG_ATOMIC_CHANGE(BITS, T, fetch_and)                                                                 \
  VG_ATOMIC_CHANGE(BITS, T, fetch_or)                                                                  \
  VG_ATOMIC_CHANGE(BITS, T, fetch_xor)                                                                 \
  int __tsan_atomic##BITS##_compare_exchange_strong(volatile T* p, T* expected, T value, int, int) {   \
    VG_SEEN(p, sizeof(T), atomic);                                                                     \
    return __atomic_compare_exchange_n(p, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
  }                                                                                                    \
  int __tsan_atomic##BITS##_compare_exchange_weak(volatile T* p, T* expected, T value, int, int) {     \
    VG_SEEN(p, sizeof(T), atomic);                                                                     \
    return __atomic_compare_exchange_n(p, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
  }

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
VG_PLAIN(1)
VG_PLAIN(2)
VG_PLAIN(4)
VG_PLAIN(8)
VG_PLAIN(16)
void __tsan_read_range(void* p, std::size_t bytes) { VG_SEEN(p, bytes, read); }
void __tsan_write_range(void* p, std::size_t bytes) { VG_SEEN(p, bytes, write); }
VG_ATOMIC(8, unsigned char)
VG_ATOMIC(16, unsigned short)
VG_ATOMIC(32, unsigned)
VG_ATOMIC(64, unsigned long)
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void __tsan_atomic_signal_fence(int) {}
}
