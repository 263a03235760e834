// A named remark about a file that was read all the same: the reader repaired or ignored something that a person should know.
#pragma once
#include <string>
#include <vector>

namespace vg {

// `name` is stable and meant for programs ("no_orientation"); `text` says what was found and what was done about it.
struct Warning {
  std::string name, text;
};
using Warnings = std::vector<Warning>;

inline bool has_warning(const Warnings& warnings, const std::string& name) {
  for (const Warning& w : warnings)
    if (w.name == name) return true;
  return false;
}

}  // namespace vg
