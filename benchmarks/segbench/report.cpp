// The three forms of a report.
#include "benchmarks/segbench/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include <vg_commit.h>  // written by cmake/commit.cmake at every build

#include "benchmarks/segbench/peak.h"
#include "tensor/os.h"

namespace vg::bench {
namespace {

constexpr const char* kOpening =
    "# Results\n\nWritten by `segbench ... --markdown benchmarks/RESULTS.md`, section by section; every section names its machine, commit and command.\n"
    "Seconds are CPU seconds divided by threads where a column says cpu: other processes' time slices do not count.\n";

// Sections of a Markdown file: what comes before the first "## ", then each heading with its text.
std::vector<std::pair<std::string, std::string>> sections_of(const std::string& text) {
  std::vector<std::pair<std::string, std::string>> sections = {{"", ""}};
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
    const std::string line = text.substr(at, end - at);
    if (line.starts_with("## ")) sections.emplace_back(line.substr(3, line.find_last_not_of('\n') - 2), "");
    else sections.back().second += line;
    at = end;
  }
  return sections;
}

std::string markdown_body(const Report& r, const std::string& command) {
  std::string text = fmt::format("\n`{}`: {}, commit {}\n\n", command, machine(), commit());
  const auto row = [&](const std::vector<std::string>& cells) {
    for (const std::string& c : cells) text += "| " + c + " ";
    text += "|\n";
  };
  row(r.columns);
  for (std::size_t i = 0; i < r.columns.size(); ++i) text += i ? "|---:" : "|---";
  text += "|\n";
  for (const auto& cells : r.rows) row(cells);
  text += "\n";
  for (const std::string& n : r.notes) text += n + "  \n";
  return r.last.empty() ? text : text + "**" + r.last + "**\n";
}

}  // namespace

std::string to_table(const Report& r) {
  std::vector<std::size_t> width(r.columns.size());
  const auto widen = [&](const std::vector<std::string>& cells) {
    for (std::size_t i = 0; i < cells.size(); ++i) width[i] = std::max(width[i], cells[i].size());
  };
  widen(r.columns);
  for (const auto& cells : r.rows) widen(cells);
  std::string text;
  const auto line = [&](const std::vector<std::string>& cells) {
    for (std::size_t i = 0; i < cells.size(); ++i) text += i ? fmt::format("  {:>{}}", cells[i], width[i]) : fmt::format("{:<{}}", cells[i], width[i]);
    text += "\n";
  };
  line(r.columns);
  for (const auto& cells : r.rows) line(cells);
  for (const std::string& n : r.notes) text += n + "\n";
  return r.last.empty() ? text : text + r.last + "\n";
}

std::string to_json(const Report& r) {
  Json j = r.data;
  j["title"] = r.title, j["machine"] = machine(), j["commit"] = commit(), j["notes"] = r.notes;
  return j.dump(1) + "\n";
}

void write_markdown(const std::string& path, const Report& r, const std::string& command) {
  auto sections = sections_of(std::filesystem::exists(path) ? os::read_text(path) : kOpening);
  const std::string body = markdown_body(r, command);
  const auto same = std::find_if(sections.begin(), sections.end(), [&](const auto& s) { return s.first == r.title; });
  if (same != sections.end()) same->second = body;
  else sections.emplace_back(r.title, body);
  std::string text;
  for (auto& [heading, content] : sections) {
    while (content.ends_with("\n\n")) content.pop_back();
    text += heading.empty() ? content : "\n## " + heading + "\n" + content;
  }
  os::write_file_atomic(path, text);
}

std::string machine() {
  return fmt::format("{}, {} threads, {}, {:.0f} GiB", os::cpu_name(), threads(), vector_target(), static_cast<double>(os::physical_memory_bytes()) / 1073741824.0);
}

std::string commit() { return VG_COMMIT; }

}  // namespace vg::bench
