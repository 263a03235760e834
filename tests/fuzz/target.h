// A fuzz target: bytes of a stranger go into one of our parsers, and what comes out must keep its promises. The same targets run under libFuzzer
// (driver/fuzz.cpp) and, on the committed corpus, in every test run (replay.h).
#pragma once
#include <cstddef>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tensor/error.h"

namespace vg::fuzz {

using Bytes = std::vector<std::byte>;
using Input = std::span<const std::byte>;

struct Target {
  const char* name;
  void (*run)(Input);            // throws Error where the bytes are refused, Broken where a promise is
  std::vector<Bytes> (*seeds)();  // small valid files to start from
};
// Those of one program: each program defines it once.
std::span<const Target> targets();

// A finding that is no crash: accepted bytes that contradict themselves.
struct Broken : std::logic_error {
  using std::logic_error::logic_error;
};
inline void promise(bool kept, const char* what) {
  if (!kept) throw Broken(what);
}

// 'A': accepted. 'R': refused as bytes of a stranger may be (bad_file, unsupported). Every other exception is a finding and passes through.
inline char verdict(const Target& target, Input input) {
  try {
    target.run(input);
    return 'A';
  } catch (const Error& e) {
    if (e.code() != ErrorCode::bad_file && e.code() != ErrorCode::unsupported) throw;
    return 'R';
  }
}

// For what may be refused without being a finding; false: refused.
template <class F>
bool accepted(F&& f) {
  try {
    std::forward<F>(f)();
    return true;
  } catch (const Error& e) {
    if (e.code() != ErrorCode::bad_file && e.code() != ErrorCode::unsupported) throw;
    return false;
  }
}

inline std::string text_of(Input bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
inline Bytes bytes_of(const std::string& text) {
  const auto* p = reinterpret_cast<const std::byte*>(text.data());
  return {p, p + text.size()};
}

}  // namespace vg::fuzz
