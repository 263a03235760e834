// Counts what a program holds: malloc and its kin are replaced in front of glibc's, so that libpng and zlib are counted as well as operator new.
// Include in one file of a program. Under a sanitizer, which brings its own malloc, VG_COUNTS_MALLOC is 0 and nothing is replaced.
#pragma once
#include <atomic>
#include <cerrno>
#include <cstddef>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define VG_COUNTS_MALLOC 0
#else
#define VG_COUNTS_MALLOC 1
#include <malloc.h>

namespace vg::test {

inline std::atomic<std::size_t> held{0}, most_held{0};
inline void* counted(void* p) noexcept {
  const std::size_t now = held += p ? malloc_usable_size(p) : 0;
  std::size_t old = most_held;
  while (now > old && !most_held.compare_exchange_weak(old, now)) {
  }
  return p;
}
inline void uncount(void* p) noexcept { held -= p ? malloc_usable_size(p) : 0; }

// The most that `work` holds at once beyond what was held before.
template <class Work>
std::size_t peak_of(Work&& work) {
  const std::size_t before = held;
  most_held = before;
  work();
  return most_held - before;
}

}  // namespace vg::test

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void __libc_free(void*);

void* malloc(std::size_t n) noexcept { return vg::test::counted(__libc_malloc(n)); }
void* calloc(std::size_t n, std::size_t size) noexcept { return vg::test::counted(__libc_calloc(n, size)); }
void* realloc(void* p, std::size_t n) noexcept {
  vg::test::uncount(p);
  void* q = __libc_realloc(p, n);
  return vg::test::counted(q || n == 0 ? q : p);  // a failure leaves the old block
}
void* memalign(std::size_t align, std::size_t n) noexcept { return vg::test::counted(__libc_memalign(align, n)); }
void* aligned_alloc(std::size_t align, std::size_t n) noexcept { return memalign(align, n); }
int posix_memalign(void** p, std::size_t align, std::size_t n) noexcept {
  *p = memalign(align, n);
  return *p ? 0 : ENOMEM;
}
void free(void* p) noexcept {
  vg::test::uncount(p);
  __libc_free(p);
}
}
#endif
