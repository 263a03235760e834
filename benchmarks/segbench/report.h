// What a measurement says, once, for three readers: a table for people, JSON for programs, a section of RESULTS.md with machine, commit and command.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace vg::bench {

using Json = nlohmann::json;

struct Report {
  std::string title;                           // "peak", "kernels unet3d"
  std::vector<std::string> columns;            // the first is aligned left, the others right
  std::vector<std::vector<std::string>> rows;  // of text, as wide as columns
  std::vector<std::string> notes;              // lines below the table
  Json data = Json::object();
  std::string last;                            // the very last line of the table's output, e.g. "ratio 3.10"
};

std::string to_table(const Report& r);
std::string to_json(const Report& r);  // data, with title, machine, commit

// Writes the report into a Markdown file as the section "## title", in the place of an earlier one of that title. `command` is quoted.
void write_markdown(const std::string& path, const Report& r, const std::string& command);

std::string machine();  // "Intel Xeon, 2 threads, AVX3, 23 GiB"
std::string commit();   // that this program was built from, "+" if files differed from it; "unknown" outside of a repository

}  // namespace vg::bench
