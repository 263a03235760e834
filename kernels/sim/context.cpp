// The switch between stacks. Only what the calling convention lets a callee keep has to be saved: six registers on x86-64, twenty on aarch64.
#include "kernels/sim/context.h"

#include <cstdint>
#include <cstring>

#include "kernels/sim/executor.h"
#include "tensor/error.h"
#include "tensor/os.h"

#if defined(VG_SIM_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(VG_SIM_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

#if !defined(VG_SIM_UCONTEXT)
// void vg_sim_switch(void** save, void* load): pushes the kept registers, stores the stack pointer in *save, continues on `load`.
// void vg_sim_ask(Request*): calls vg_sim_answer, in which other threads run, and goes back to the kernel.
//
// How each of them leaves matters more than what it saves, because a processor predicts returns from a stack of its own. Whoever is switched to sits in
// the same chain of calls as whoever switched, so those may return. But one thread stands at this barrier of the kernel and the other at the next:
// that last step is an indirect jump, which is predicted from history. Measured per thread and barrier: 14 ns; 28 if the switch ends in a jump too; 30
// if everything returns and the kernel's loop has two barriers.
extern "C" __attribute__((visibility("hidden"))) void vg_sim_switch(void** save, void* load);
#if defined(__x86_64__)
asm(R"(
.pushsection .text
.p2align 4
.hidden vg_sim_switch
.globl vg_sim_switch
.type vg_sim_switch, @function
vg_sim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size vg_sim_switch, .-vg_sim_switch

.p2align 4
.hidden vg_sim_ask
.globl vg_sim_ask
.type vg_sim_ask, @function
vg_sim_ask:
  .cfi_startproc
  pushq %rbp
  .cfi_def_cfa_offset 16
  .cfi_offset %rbp, -16
  movq %rsp, %rbp
  .cfi_def_cfa_register %rbp
  call vg_sim_answer
  popq %rbp
  .cfi_def_cfa %rsp, 8
  popq %rdx
  .cfi_def_cfa_offset 0
  .cfi_register %rip, %rdx
  jmpq *%rdx
  .cfi_endproc
.size vg_sim_ask, .-vg_sim_ask
.popsection
)");
#elif defined(__aarch64__)
asm(R"(
.pushsection .text
.p2align 4
.hidden vg_sim_switch
.globl vg_sim_switch
.type vg_sim_switch, %function
vg_sim_switch:
  sub sp, sp, #160
  stp x19, x20, [sp]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size vg_sim_switch, .-vg_sim_switch

.p2align 4
.hidden vg_sim_ask
.globl vg_sim_ask
.type vg_sim_ask, %function
vg_sim_ask:
  .cfi_startproc
  stp x29, x30, [sp, #-16]!
  .cfi_def_cfa_offset 16
  .cfi_offset x29, -16
  .cfi_offset x30, -8
  mov x29, sp
  bl vg_sim_answer
  ldp x29, x30, [sp], #16
  .cfi_def_cfa_offset 0
  .cfi_restore x29
  .cfi_restore x30
  mov x16, x30
  br x16
  .cfi_endproc
.size vg_sim_ask, .-vg_sim_ask
.popsection
)");
#endif
#else
extern "C" void vg_sim_answer(vg::simt::Request* request);
extern "C" void vg_sim_ask(vg::simt::Request* request) { vg_sim_answer(request); }
#endif

namespace vg::simt {
namespace {

#if defined(VG_SIM_ASAN)
constexpr std::size_t kStackBytes = 512 << 10;  // its frames are several times larger
#else
constexpr std::size_t kStackBytes = 128 << 10;
#endif
constexpr std::size_t kStagger = 5 * 64, kStaggerRange = 4096;  // bytes; the range is one way of a 32 to 64 KiB first-level cache

#if defined(VG_SIM_ASAN)
thread_local Context* left = nullptr;  // the context that the last switch left
#endif

}  // namespace

void Context::allocate(int number) {
  bytes_ = kStackBytes;
  stack_ = static_cast<char*>(os::allocate_stack(bytes_));
  if (!stack_)
    fail(ErrorCode::out_of_memory,
         "sim device: no memory for stack {} of {} KiB (each takes two of vm.max_map_count's mappings; fewer threads help)", number,
         bytes_ >> 10);
  stagger_ = static_cast<std::size_t>(number) * kStagger % kStaggerRange;
#if defined(VG_SIM_TSAN)
  fiber_ = __tsan_create_fiber(0);
#endif
}

void Context::rewind(void (*entry)()) {
#if defined(VG_SIM_ASAN)
  __asan_unpoison_memory_region(stack_, bytes_);
  fake_stack_ = nullptr;
#endif
#if defined(VG_SIM_TSAN)
  // What is forgotten stays on the sanitizer's own stack of calls (64 thousand deep). A new one costs as much as a new thread.
  if (++rewinds_ % 1024 == 0) {
    __tsan_destroy_fiber(fiber_);
    fiber_ = __tsan_create_fiber(0);
  }
#endif
#if defined(VG_SIM_UCONTEXT)
  ::getcontext(&context_);
  context_.uc_stack.ss_sp = stack_;
  context_.uc_stack.ss_size = bytes_ - stagger_;
  context_.uc_link = nullptr;
  ::makecontext(&context_, entry, 0);
#else
  char* top = stack_ + bytes_ - stagger_;  // a multiple of 16
#if defined(__x86_64__)
  // As after a call: the stack pointer is 8 below a multiple of 16 when entry starts, and its return address 0 ends every backtrace.
  void** frame = reinterpret_cast<void**>(top) - 10;
  std::memset(frame, 0, 10 * sizeof(void*));
  frame[6] = reinterpret_cast<void*>(entry);  // where the switch returns to; then the stack pointer is frame + 7 = top - 24
#else
  void** frame = reinterpret_cast<void**>(top - 160);
  std::memset(frame, 0, 160);
  frame[11] = reinterpret_cast<void*>(entry);  // x30's place
#endif
  stack_pointer_ = frame;
#endif
}

void Context::switch_to(Context& from, Context& to) {
#if defined(VG_SIM_ASAN)
  left = &from;
  __sanitizer_start_switch_fiber(&from.fake_stack_, to.stack_, to.bytes_);
#endif
#if defined(VG_SIM_TSAN)
  if (!from.stack_) from.fiber_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(to.fiber_, 0);
#endif
#if defined(VG_SIM_UCONTEXT)
  ::swapcontext(&from.context_, &to.context_);
#else
  vg_sim_switch(&from.stack_pointer_, to.stack_pointer_);
#endif
#if defined(VG_SIM_ASAN)
  const void* bottom;
  std::size_t size;
  __sanitizer_finish_switch_fiber(from.fake_stack_, &bottom, &size);
  left->stack_ = static_cast<char*>(const_cast<void*>(bottom));
  left->bytes_ = size;
#endif
}

void arrived() {
#if defined(VG_SIM_ASAN)
  const void* bottom;
  std::size_t size;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
  left->stack_ = static_cast<char*>(const_cast<void*>(bottom));
  left->bytes_ = size;
#endif
}

}  // namespace vg::simt
