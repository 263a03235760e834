// A stack and a place to go on: what one waiting GPU thread needs on a CPU. Switching is fifteen instructions of our own on x86-64 and aarch64,
// ucontext elsewhere (or with VG_SIM_UCONTEXT): forty times slower, same results. Sanitizers are told about every switch.
#pragma once
#include <cstddef>

#if !defined(__x86_64__) && !defined(__aarch64__) && !defined(VG_SIM_UCONTEXT)
#define VG_SIM_UCONTEXT
#endif
#if defined(VG_SIM_UCONTEXT)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define VG_SIM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define VG_SIM_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define VG_SIM_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define VG_SIM_TSAN 1
#endif
#endif

namespace vg::simt {

class Context {
 public:
  Context() = default;  // the worker's own stack
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  // Gets a stack; `number` staggers its top, so that equal frames of many stacks do not share one set of the cache. Throws out_of_memory.
  void allocate(int number);
  // Forgets what ran here (without unwinding it): the next switch enters entry(), which must never return.
  void rewind(void (*entry)());

  bool holds(const void* p) const { return p >= stack_ && p < stack_ + bytes_; }

  // Leaves `from`, which goes on when somebody switches back to it.
  static void switch_to(Context& from, Context& to);

 private:
#if defined(VG_SIM_UCONTEXT)
  ucontext_t context_;
#else
  void* stack_pointer_ = nullptr;
#endif
  char* stack_ = nullptr;  // lowest byte
  std::size_t bytes_ = 0, stagger_ = 0;
#if defined(VG_SIM_ASAN)
  void* fake_stack_ = nullptr;
  friend void arrived();
#endif
#if defined(VG_SIM_TSAN)
  void* fiber_ = nullptr;
  unsigned rewinds_ = 0;
#endif
};

// To be called first in entry().
void arrived();

}  // namespace vg::simt
