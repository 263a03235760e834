// What tests of files share: a folder that vanishes with the test, errors caught by their code, bytes in and out, the data that are not ours.
#pragma once
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "tensor/error.h"
#include "tensor/os.h"

namespace vg::test {

class Folder {
 public:
  Folder() {
    std::string name = testing::TempDir() + "vg-layers-XXXXXX";
    folder_ = ::mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(folder_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string operator/(const std::string& name) const { return folder_ + "/" + name; }

 private:
  std::string folder_;
};

inline std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void put_bytes(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

// The message of the error that `call` must throw; "" (and a failure) if it throws none.
template <class Call>
std::string message_of(ErrorCode code, Call&& call) {
  try {
    call();
  } catch (const Error& e) {
    EXPECT_EQ(static_cast<int>(e.code()), static_cast<int>(code)) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "no error was thrown";
  return "";
}

// Data of others (VG_TEST_DATA, default ../shared/data beside the repository); "" if the file is not there: the test skips itself and says so.
inline std::string shared_data(const std::string& name) {
  const std::string root = os::environment("VG_TEST_DATA");
  const std::string path = (root.empty() ? std::string(VG_SOURCE_DIR) + "/../shared/data" : root) + "/" + name;
  return std::filesystem::exists(path) ? path : "";
}

}  // namespace vg::test
