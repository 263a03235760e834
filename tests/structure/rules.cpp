// The rules themselves. They read text, not C++: good enough for code that follows one style, and quick.
#include "tests/structure/rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <set>

namespace vg::structure {
namespace {

constexpr int kMostLines = 600;

// Who may know whom, transitively closed. Tools know every library, and segbench what it runs; tests and benchmarks know everything.
const std::map<std::string, std::set<std::string>> kKnows = {
    {"tensor", {}},
    {"nifti", {"tensor"}},
    {"kernels", {"tensor"}},
    {"layers", {"kernels", "tensor"}},
    {"infer", {"layers", "kernels", "nifti", "tensor"}},
    {"train", {"infer", "layers", "kernels", "nifti", "tensor"}},
    {"tools", {"benchmarks", "train", "infer", "layers", "kernels", "nifti", "tensor"}},
    {"tests", {"train", "infer", "layers", "kernels", "nifti", "tensor", "tools", "benchmarks"}},
    {"benchmarks", {"train", "infer", "layers", "kernels", "nifti", "tensor", "tools"}},
};

std::string first_folder(const std::string& path) {
  const std::size_t slash = path.find('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

bool is_library(const std::string& path) {
  const std::string folder = first_folder(path);
  return kKnows.contains(folder) && folder != "tools" && folder != "tests" && folder != "benchmarks";
}

bool is_cpp(const std::string& path) {
  return path.ends_with(".h") || path.ends_with(".cuh") || path.ends_with(".cpp") || path.ends_with(".cu") || path.ends_with(".inc");
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

// Includes of a file: the line number, the name, and whether it was quoted.
struct Include {
  int line;
  std::string name;
  bool quoted;
};
std::vector<Include> includes_of(const std::string& text) {
  std::vector<Include> includes;
  int number = 0;
  for (const std::string& line : lines_of(text)) {
    ++number;
    std::size_t at = line.find_first_not_of(" \t");
    if (at == std::string::npos || line[at] != '#') continue;
    at = line.find_first_not_of(" \t", at + 1);
    if (at == std::string::npos || line.compare(at, 7, "include") != 0) continue;
    const std::size_t open = line.find_first_of("\"<", at);
    if (open == std::string::npos) continue;
    const std::size_t close = line.find(line[open] == '<' ? '>' : '"', open + 1);
    includes.push_back({number, line.substr(open + 1, close - open - 1), line[open] == '"'});
  }
  return includes;
}

std::string joined(const std::set<std::string>& names) {
  std::string text;
  for (const std::string& n : names) text += (text.empty() ? "" : ", ") + n;
  return text.empty() ? "nothing" : text;
}

}  // namespace

std::string code_only(const std::string& text) {
  std::string code = text;
  const std::size_t n = text.size();
  const auto blank = [&](std::size_t from, std::size_t to) {
    for (std::size_t i = from; i < std::min(to, n); ++i)
      if (code[i] != '\n') code[i] = ' ';
  };
  for (std::size_t i = 0; i < n;) {
    std::size_t end = i + 1;
    if (text.compare(i, 2, "//") == 0) {
      end = std::min(text.find('\n', i), n);
      blank(i, end);
    } else if (text.compare(i, 2, "/*") == 0) {
      const std::size_t close = text.find("*/", i + 2);
      end = close == std::string::npos ? n : close + 2;
      blank(i, end);
    } else if (text.compare(i, 2, "R\"") == 0 && (i == 0 || !is_word(text[i - 1]))) {
      const std::size_t open = std::min(text.find('(', i), n);
      std::string close(1, ')');
      close.append(text, i + 2, open - i - 2).push_back('"');
      const std::size_t last = text.find(close, open);
      end = last == std::string::npos ? n : last + close.size();
      blank(i + 2, end - 1);
    } else if (text[i] == '"' || (text[i] == '\'' && (i == 0 || !is_word(text[i - 1])))) {  // 1'000 is a number
      while (end < n && text[end] != text[i] && text[end] != '\n') end += text[end] == '\\' ? 2 : 1;
      blank(i + 1, end);
      end = std::min(end + 1, n);
    }
    i = end;
  }
  return code;
}

Complaints check_includes(const std::string& path, const std::string& text) {
  Complaints complaints;
  const std::string folder = first_folder(path);
  const auto mine = kKnows.find(folder);
  if (mine == kKnows.end() || !is_cpp(path)) return complaints;
  for (const Include& include : includes_of(text)) {
    const std::string target = first_folder(include.name);
    if (!include.quoted) {
      if (kKnows.contains(target)) complaints.push_back(fmt::format("{}:{}: <{}> is ours: use quotes", path, include.line, include.name));
      continue;
    }
    if (target == "hwy") continue;  // as Highway quotes its own headers, everywhere
    if (!kKnows.contains(target))
      complaints.push_back(fmt::format("{}:{}: \"{}\" is not rooted at the repository", path, include.line, include.name));
    else if (target != folder && !mine->second.contains(target))
      complaints.push_back(
          fmt::format("{}:{}: includes {} ({} may know {})", path, include.line, include.name, folder, joined(mine->second)));
  }
  return complaints;
}

Complaints check_system_headers(const std::string& path, const std::string& text) {
  static const std::set<std::string> posix = {"unistd.h", "fcntl.h", "dlfcn.h",   "pthread.h", "signal.h", "csignal",
                                              "dirent.h", "spawn.h", "termios.h", "poll.h",    "sched.h",  "netdb.h"};
  Complaints complaints;
  if (!is_library(path) || !is_cpp(path) || path.starts_with("tensor/os_")) return complaints;
  for (const Include& include : includes_of(text))
    if (posix.contains(include.name) || include.name.starts_with("sys/"))
      complaints.push_back(fmt::format("{}:{}: <{}> belongs behind tensor/os.h", path, include.line, include.name));
  return complaints;
}

Complaints check_form(const std::string& path, const std::string& text) {
  Complaints complaints;
  const std::vector<std::string> lines = lines_of(text);
  if (static_cast<int>(lines.size()) > kMostLines)
    complaints.push_back(fmt::format("{}: {} lines (at most {}): split it by idea", path, lines.size(), kMostLines));
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (std::any_of(lines[i].begin(), lines[i].end(), [](char c) { return static_cast<unsigned char>(c) > 126; }))
      complaints.push_back(fmt::format("{}:{}: not ASCII", path, i + 1));
    if (lines[i].find('\t') != std::string::npos) complaints.push_back(fmt::format("{}:{}: a tab", path, i + 1));
    if (lines[i].ends_with('\r')) complaints.push_back(fmt::format("{}:{}: a carriage return", path, i + 1));
  }
  if (!text.empty() && !text.ends_with('\n')) complaints.push_back(fmt::format("{}: no line break at the end", path));
  std::size_t first = 0;
  if (first < lines.size() && lines[first].starts_with("#!")) ++first;
  std::size_t opening = 0;  // characters of the comment at the top
  const std::string comment = is_cpp(path) ? "//" : "#", mark = path.ends_with(".py") ? "\"\"\"" : comment;
  for (; first < lines.size() && (lines[first].starts_with(mark) || lines[first].starts_with(comment)); ++first)
    opening += lines[first].size();
  if (opening < 30) complaints.push_back(fmt::format("{}: no opening comment that says what it is and why", path));
  // Highway's -inl.h files are read once per instruction set, on purpose.
  const bool header = (path.ends_with(".h") || path.ends_with(".cuh")) && !path.ends_with("-inl.h");
  if (header && std::find(lines.begin(), lines.end(), "#pragma once") == lines.end())
    complaints.push_back(fmt::format("{}: no #pragma once", path));
  return complaints;
}

Complaints check_calls(const std::string& path, const std::string& text) {
  static const std::set<std::string> never = {"system", "popen", "strcpy", "strcat", "sprintf", "vsprintf", "gets",
                                              "strtok", "atoi",  "atol",   "atoll",  "atof",    "tmpnam",   "alloca"};
  static const std::set<std::string> not_in_libraries = {"printf",  "fprintf", "vprintf",    "puts",  "fputs",
                                                         "putchar", "putc",    "perror",     "print", "exit",
                                                         "_exit",   "_Exit",   "quick_exit", "abort", "terminate"};
  static const std::set<std::string> streams = {"cout", "cerr", "clog"};
  Complaints complaints;
  if (!is_cpp(path)) return complaints;
  const bool library = is_library(path);
  const std::string code = code_only(text);
  int line = 1;
  for (std::size_t i = 0; i < code.size(); ++i) {
    if (code[i] == '\n') ++line;
    if (!is_word(code[i]) || (i > 0 && is_word(code[i - 1]))) continue;
    std::size_t end = i;
    while (end < code.size() && is_word(code[end])) ++end;
    const std::string word = code.substr(i, end - i);
    if (library && streams.contains(word) && i >= 2 && code.compare(i - 2, 2, "::") == 0)
      complaints.push_back(fmt::format("{}:{}: std::{} in a library", path, line, word));
    if (!never.contains(word) && !(library && not_in_libraries.contains(word))) continue;
    if (word == "_exit" && path == "tensor/os_child.cpp") continue;  // the one place that ends a process: the child that it made
    const std::size_t next = code.find_first_not_of(" \n", end);
    if (next == std::string::npos || code[next] != '(') continue;
    // A member or a function of another namespace of that name is something else.
    std::size_t before = i;
    while (before > 0 && code[before - 1] == ' ') --before;
    const bool member = before > 0 && (code[before - 1] == '.' || (before > 1 && code.compare(before - 2, 2, "->") == 0));
    const bool qualified = before > 1 && code.compare(before - 2, 2, "::") == 0;
    const bool std_or_fmt =
        qualified && (before == 2 || !is_word(code[before - 3]) ||
                      (before >= 5 && (code.compare(before - 5, 3, "std") == 0 || code.compare(before - 5, 3, "fmt") == 0)));
    const bool declared =
        before > 0 && is_word(code[before - 1]) && code.compare(before - std::min<std::size_t>(before, 6), 6, "return") != 0;
    if (member || declared || (qualified && !std_or_fmt)) continue;
    if (word == "print" && !qualified) continue;  // fmt::print prints; print of our own may not
    complaints.push_back(fmt::format("{}:{}: {}(){}", path, line, word, never.contains(word) ? "" : " in a library"));
  }
  return complaints;
}

Complaints check_all(const std::string& path, const std::string& text) {
  Complaints all;
  for (const auto check : {check_includes, check_system_headers, check_form, check_calls}) {
    const Complaints some = check(path, text);
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

}  // namespace vg::structure
