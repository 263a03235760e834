// Reads every source of the repository and holds it to the house rules; and shows, on made-up files, that each rule can fail.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/structure/rules.h"

namespace vg::structure {
namespace {
namespace fs = std::filesystem;

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> sources() {
  std::vector<std::string> paths;
  const fs::path root = VG_SOURCE_DIR;
  for (const char* folder : {"tensor", "nifti", "kernels", "layers", "infer", "train", "tools", "tests", "benchmarks", "cmake", ".ci"}) {
    if (!fs::exists(root / folder)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      const std::string extension = entry.path().extension(), name = entry.path().filename();
      for (const char* wanted : {".h", ".cuh", ".cpp", ".cu", ".inc", ".py", ".sh", ".cmake"})
        if (entry.is_regular_file() && extension == wanted) paths.push_back(fs::relative(entry.path(), root));
      if (name == "CMakeLists.txt" || name == "run") paths.push_back(fs::relative(entry.path(), root));
    }
  }
  paths.insert(paths.end(), {"CMakeLists.txt", "dev"});
  return paths;
}

TEST(Structure, EverySourceKeepsTheRules) {
  const std::vector<std::string> paths = sources();
  ASSERT_GT(paths.size(), 30u) << "the repository was not found at " << VG_SOURCE_DIR;
  for (const std::string& path : paths)
    for (const std::string& complaint : check_all(path, read(fs::path(VG_SOURCE_DIR) / path))) ADD_FAILURE() << complaint;
}

// --- each rule on made-up files ---

const std::string kOpening = "// What it is, and why it is there, in a line.\n";

int complaints(const std::string& path, const std::string& text) { return static_cast<int>(check_all(path, kOpening + text).size()); }

TEST(Rules, FoldersMayKnowOnlyThoseBelow) {
  EXPECT_EQ(complaints("layers/a.cpp", "#include \"layers/a.h\"\n#include \"kernels/conv.h\"\n#include \"tensor/tensor.h\"\n"), 0);
  EXPECT_EQ(complaints("train/a.cpp", "#include \"nifti/image.h\"\n#include \"infer/labels.h\"\n"), 0);
  EXPECT_EQ(complaints("tests/a.cpp", "#include \"train/loop.h\"\n#include \"nifti/image.h\"\n"), 0);
  EXPECT_EQ(complaints("tensor/a.cpp", "#include \"kernels/conv.h\"\n"), 1);
  EXPECT_EQ(complaints("kernels/a.cu", "#include \"nifti/image.h\"\n"), 1);
  EXPECT_EQ(complaints("layers/a.cpp", "#  include \"nifti/image.h\"\n"), 1);
  EXPECT_EQ(complaints("infer/a.cpp", "#include \"train/loop.h\"\n"), 1);
  EXPECT_EQ(complaints("train/a.cpp", "#include \"tools/common.h\"\n"), 1);
  EXPECT_EQ(complaints("tensor/a.cpp", "#include \"tests/util.h\"\n"), 1);
}

TEST(Rules, IncludesAreRootedAndQuoted) {
  EXPECT_EQ(complaints("layers/a.cpp", "#include \"tape.h\"\n"), 1);
  EXPECT_EQ(complaints("layers/a.cpp", "#include \"../kernels/conv.h\"\n"), 1);
  EXPECT_EQ(complaints("layers/a.cpp", "#include <kernels/conv.h>\n"), 1);
  EXPECT_EQ(complaints("layers/a.cpp", "#include <vector>\n"), 0);
}

TEST(Rules, PosixStaysBehindOs) {
  EXPECT_EQ(complaints("nifti/a.cpp", "#include <unistd.h>\n#include <sys/mman.h>\n"), 2);
  EXPECT_EQ(complaints("tensor/os_file.cpp", "#include <unistd.h>\n"), 0);
  EXPECT_EQ(complaints("tests/tensor/a.cpp", "#include <unistd.h>\n"), 0);
}

TEST(Rules, Form) {
  EXPECT_EQ(complaints("nifti/a.h", "#pragma once\n"), 0);
  EXPECT_EQ(complaints("nifti/a.h", "int x;\n"), 1);
  EXPECT_EQ(complaints("kernels/a-inl.h", "int x;\n"), 0);
  EXPECT_EQ(complaints("nifti/a.cpp", "int x;  // \xc3\xa9\n"), 1);
  EXPECT_EQ(complaints("nifti/a.cpp", "\tint x;\n"), 1);
  EXPECT_EQ(complaints("nifti/a.cpp", "int x;\r\n"), 1);
  EXPECT_EQ(complaints("nifti/a.cpp", "int x;"), 1);
  EXPECT_EQ(check_all("nifti/a.cpp", "int x;\n").size(), 1u);
  EXPECT_EQ(check_all("nifti/a.cpp", "// short\nint x;\n").size(), 1u);
  EXPECT_EQ(check_all("tools/a.py", "\"\"\"Says at length what this script is good for.\"\"\"\n").size(), 0u);
  std::string lines;
  for (int i = 0; i < 599; ++i) lines += "\n";
  EXPECT_EQ(complaints("nifti/a.cpp", lines), 0);
  EXPECT_EQ(complaints("nifti/a.cpp", lines + "\n"), 1);
}

TEST(Rules, CallsThatAreNeverMade) {
  EXPECT_EQ(complaints("tools/a.cpp", "int main() { return system(\"ls\"); }\n"), 1);
  EXPECT_EQ(complaints("tests/a.cpp", "void f() { std::sprintf(b, \"x\"); ::strcpy (a, b); int i = atoi(s); }\n"), 3);
  EXPECT_EQ(complaints("tests/a.cpp", "void f() { snprintf(b, 3, \"x\"); file_system(x); o.system(x); p->system(x); os::system(x); }\n"),
            0);
  EXPECT_EQ(complaints("tests/a.cpp", "// system(x)\nconst char* s = \"system(x)\"; /* atoi(x) */\n"), 0);
  EXPECT_EQ(complaints("tests/a.cpp", "auto s = R\"(system(x) \")\"; char c = '\"'; system(x);\n"), 1);
  EXPECT_EQ(complaints("tests/a.cpp", "int n = 1'000; system(x); int m = 2'000;\n"), 1);
}

TEST(Rules, LibrariesNeitherPrintNorExit) {
  const std::string text = "void f() { printf(\"x\"); std::cout << 1; fmt::print(\"x\"); std::exit(1); ::_exit(2); abort(); }\n";
  EXPECT_EQ(complaints("infer/a.cpp", text), 6);
  EXPECT_EQ(complaints("tools/a.cpp", text), 0);
  EXPECT_EQ(complaints("infer/a.cpp", "void print(int x); void f() { print(1); x.exit(); }\n"), 0);
}

TEST(Rules, BlankingKeepsPlacesAndLines) {
  const std::string text = "a \"b\\\"c\" // d\n'e' /* f\ng */ h";
  const std::string code = code_only(text);
  EXPECT_EQ(code.size(), text.size());
  EXPECT_EQ(code, "a \"    \"     \n' '     \n     h");
}

}  // namespace
}  // namespace vg::structure
