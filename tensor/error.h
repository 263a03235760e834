// The one exception type of the project. Libraries throw it and never print or exit; the programs in tools/ catch it, print what() and exit with 1.
// A message says who (file, tensor, layer), what was found and what was wanted.
#pragma once
#include <stdexcept>
#include <string>
#include <utility>

namespace vg {

enum class ErrorCode {
  invalid_argument,  // a call that can never work: wrong shape, wrong device, wrong option
  bad_file,          // bytes that break their format's rules, or that do not belong together
  unsupported,       // well-formed, but outside what we read or compute
  io,                // the operating system refused: open, read, write, sync, rename
  no_device,         // the device asked for is not there
  out_of_memory,     // an allocation failed or would pass the limit that the user set
  numeric,           // a result that must not be used: NaN loss, constant volume
  interrupted,       // stopped on request after saving
};

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace vg

#if !defined(__CUDACC__)  // kernels never throw, so nvcc is spared the formatting library
#include <fmt/format.h>

namespace vg {

// fail(ErrorCode::bad_file, "{}: dim[{}] = {} (wanted 1..32767)", path, i, dim[i]);
template <class... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

// Throws unless `ok`: the argument check of public functions.
template <class... Args>
void require(bool ok, fmt::format_string<Args...> format, Args&&... args) {
  if (!ok) [[unlikely]] throw Error(ErrorCode::invalid_argument, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace vg
#endif
