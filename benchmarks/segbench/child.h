// Child processes that answer each line with a line of JSON, and the folder in which the two sides exchange files.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace vg::bench {

using Words = std::vector<std::string>;

// A running program with pipes to its stdin and from its stdout; ended (SIGKILL) with the object. Its stderr goes nowhere unless `loud`.
class Child {
 public:
  Child(const Words& command, bool loud);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  void tell(const std::string& line);
  // The next line, as JSON. Throws io when the child has ended or says nothing for `seconds`.
  nlohmann::json answer(double seconds);

 private:
  bool read_some(double seconds);  // false: its end, or nothing in time
  std::string name_, text_;
  int pid_ = -1, in_ = -1, out_ = -1;
};

// A new folder in the system's folder for temporary files, removed with the object.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace vg::bench
