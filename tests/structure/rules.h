// The rules that hold this repository's shape together, as functions from a file's path and text to complaints. Kept apart from the file
// system so that each rule can be shown to fire.
#pragma once
#include <string>
#include <vector>

namespace vg::structure {

// One complaint per broken rule: "layers/tape.cpp:12: includes train/loop.h (layers may know kernels, tensor)".
using Complaints = std::vector<std::string>;

// The same text with the insides of comments, strings and characters blanked out, line breaks kept.
std::string code_only(const std::string& text);

// Folders: a file may include its own folder and those below it; quoted includes are rooted at the repository.
Complaints check_includes(const std::string& path, const std::string& text);

// POSIX headers only behind tensor/os.h.
Complaints check_system_headers(const std::string& path, const std::string& text);

// ASCII, at most 600 lines, an opening comment, #pragma once in headers, no tabs, a line break at the end.
Complaints check_form(const std::string& path, const std::string& text);

// Functions that overrun, run a shell or cannot report an error; in libraries also printing and exiting.
Complaints check_calls(const std::string& path, const std::string& text);

Complaints check_all(const std::string& path, const std::string& text);

}  // namespace vg::structure
