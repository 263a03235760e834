// Files that are replaced whole or not at all, maps, locks, and what the machine says about itself.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tensor/error.h"
#include "tensor/os.h"

namespace vg {
namespace {
namespace fs = std::filesystem;

class Files : public testing::Test {
 protected:
  Files() {
    std::string name = testing::TempDir() + "vg-os-XXXXXX";
    folder_ = ::mkdtemp(name.data());
  }
  ~Files() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  int entries() const { return static_cast<int>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator())); }
  std::string folder_;
};

template <class Call>
std::string message_of(ErrorCode code, Call&& call) {
  try {
    call();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "no error was thrown";
  return {};
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST_F(Files, AWrittenFileReadsBack) {
  std::string content(1'000'003, 'x');
  content[5] = '\0';
  os::write_file_atomic(path("a"), content);
  EXPECT_EQ(os::read_text(path("a")), content);
  EXPECT_EQ(os::read_file(path("a")).size(), content.size());
  EXPECT_EQ(os::read_text(path("a"), content.size()), content);
  os::write_file_atomic(path("a"), "");
  EXPECT_EQ(os::read_text(path("a")), "");
  EXPECT_EQ(entries(), 1);
}

TEST_F(Files, UncommittedFilesLeaveNoTrace) {
  os::write_file_atomic(path("a"), "old");
  {
    os::AtomicFile file(path("a"));
    file.write("new");
    EXPECT_EQ(os::read_text(path("a")), "old");
    EXPECT_EQ(entries(), 2);
  }
  EXPECT_EQ(os::read_text(path("a")), "old");
  EXPECT_EQ(entries(), 1);
}

// A file size limit makes write() fail as a full disk does, for root too.
TEST_F(Files, AFailedWriteKeepsTheOldFile) {
  os::write_file_atomic(path("a"), "old");
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 1000;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message = message_of(ErrorCode::io, [&] { os::write_file_atomic(path("a"), std::string(5000, 'n')); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, handler);
  EXPECT_TRUE(contains(message, path("a")) && contains(message, "File too large")) << message;
  EXPECT_EQ(os::read_text(path("a")), "old");
  EXPECT_EQ(entries(), 1);
}

TEST_F(Files, AKilledWriterKeepsTheOldFile) {
  os::write_file_atomic(path("a"), "old");
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    os::AtomicFile file(path("a"));
    file.write("half of the ne");
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(os::read_text(path("a")), "old");
  os::write_file_atomic(path("a"), "new");
  EXPECT_EQ(os::read_text(path("a")), "new");
}

TEST_F(Files, ReadersSeeOneVersionOrTheOther) {
  const auto version = [](int i) { return std::string(20000 + 100 * i, static_cast<char>('a' + i % 26)); };
  os::write_file_atomic(path("a"), version(0));
  std::atomic<bool> done{false};
  std::atomic<int> torn{0}, reads{0};
  std::thread reader([&] {
    do {
      const std::string text = os::read_text(path("a"));
      ++reads;
      if (text.size() < 20000 || text != version(static_cast<int>(text.size() - 20000) / 100)) ++torn;
    } while (!done);
  });
  for (int i = 1; i < 60; ++i) os::write_file_atomic(path("a"), version(i));
  done = true;
  reader.join();
  EXPECT_EQ(torn, 0);
  EXPECT_GE(reads, 1);
}

TEST_F(Files, LinksAreFollowedAndKept) {
  fs::create_directory(path("real"));
  os::write_file_atomic(path("real/file"), "old");
  fs::create_symlink("real/file", path("link"));
  fs::create_symlink("link", path("second"));
  os::write_file_atomic(path("second"), "new");
  EXPECT_TRUE(fs::is_symlink(path("second")) && fs::is_symlink(path("link")));
  EXPECT_EQ(os::read_text(path("real/file")), "new");
  fs::create_symlink("real/born", path("dangling"));
  os::write_file_atomic(path("dangling"), "here");
  EXPECT_EQ(os::read_text(path("real/born")), "here");
  fs::create_symlink("loop", path("loop"));
  EXPECT_TRUE(contains(message_of(ErrorCode::io, [&] { os::write_file_atomic(path("loop"), "x"); }), path("loop")));
}

TEST_F(Files, PermissionsSurviveReplacement) {
  os::write_file_atomic(path("a"), "old");
  fs::permissions(path("a"), fs::perms(0640));
  os::write_file_atomic(path("a"), "new");
  EXPECT_EQ(fs::status(path("a")).permissions(), fs::perms(0640));
}

TEST_F(Files, PlacesThatCannotBeWrittenAreNamed) {
  const std::string missing = message_of(ErrorCode::io, [&] { os::write_file_atomic(path("no/such/file"), "x"); });
  EXPECT_TRUE(contains(missing, path("no/such/file")) && contains(missing, "No such file")) << missing;
  EXPECT_TRUE(contains(message_of(ErrorCode::io, [&] { os::write_file_atomic(folder_, "x"); }), "directory"));
  message_of(ErrorCode::io, [] { os::write_file_atomic("/proc/voxgrad-test", "x"); });
  EXPECT_EQ(entries(), 0);
}

TEST_F(Files, DevicesAreWrittenToAndNotReplaced) {
  os::write_file_atomic("/dev/null", "x");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_TRUE(contains(message_of(ErrorCode::io, [] { os::write_file_atomic("/dev/full", "x"); }), "No space left"));
  EXPECT_TRUE(fs::is_character_file("/dev/full"));
}

TEST_F(Files, ReadingRefusesWhatIsNotThere) {
  EXPECT_EQ(message_of(ErrorCode::io, [&] { os::read_file(path("a")); }), path("a") + ": No such file or directory");
  message_of(ErrorCode::bad_file, [&] { os::read_file(folder_); });
  message_of(ErrorCode::bad_file, [&] { os::MappedFile{folder_}; });
  os::write_file_atomic(path("a"), "12345");
  EXPECT_TRUE(contains(message_of(ErrorCode::bad_file, [&] { os::read_text(path("a"), 4); }), "5 bytes"));
  message_of(ErrorCode::bad_file, [] { os::read_file("/dev/zero", 100'000); });  // no size, no end
  EXPECT_TRUE(contains(os::read_text("/proc/self/status"), "VmHWM"));            // no size, but an end
}

TEST_F(Files, InputFileReadsInPieces) {
  os::write_file_atomic(path("a"), "0123456789");
  os::InputFile file(path("a"));
  char piece[8] = {};
  EXPECT_EQ(file.size(), 10u);
  EXPECT_EQ(file.read(piece, 4), 4u);
  EXPECT_EQ(std::string(piece, 4), "0123");
  EXPECT_EQ(file.read(piece, 8), 6u);
  EXPECT_EQ(std::string(piece, 6), "456789");
  EXPECT_EQ(file.read(piece, 8), 0u);
  file.seek(9);
  EXPECT_EQ(file.read(piece, 8), 1u);
  EXPECT_EQ(piece[0], '9');
}

TEST_F(Files, AMapOutlivesReplacement) {
  os::write_file_atomic(path("a"), "the old bytes");
  const os::MappedFile map(path("a"));
  os::write_file_atomic(path("a"), "others");
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(map.data()), map.size()), "the old bytes");
  os::write_file_atomic(path("empty"), "");
  EXPECT_EQ(os::MappedFile(path("empty")).size(), 0u);
}

TEST_F(Files, ALockHasOneHolder) {
  auto held = os::try_lock(path("lock"));
  ASSERT_TRUE(held);
  EXPECT_FALSE(os::try_lock(path("lock")));
  const pid_t child = ::fork();
  if (child == 0) ::_exit(os::try_lock(path("lock")) ? 1 : 0);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  held.reset();
  EXPECT_TRUE(os::try_lock(path("lock")));
  message_of(ErrorCode::io, [&] { os::try_lock(path("no/lock")); });
}

TEST(Process, FiguresArePlausible) {
  EXPECT_GE(os::hardware_threads(), 1);
  EXPECT_LE(os::hardware_threads(), static_cast<int>(::sysconf(_SC_NPROCESSORS_CONF)));
  EXPECT_GT(os::physical_memory_bytes(), std::uint64_t{1} << 28);
  EXPECT_FALSE(os::cpu_name().empty());
  EXPECT_TRUE(fs::exists(os::executable_folder() + "/test_tensor"));
  EXPECT_GE(os::terminal_columns(1), 1);
  EXPECT_EQ(os::environment("VG_SURELY_NOT_SET"), "");
  EXPECT_NE(os::environment("PATH"), "");
  const double wall = os::wall_seconds(), cpu = os::cpu_seconds();
  volatile double x = 1;
  for (int i = 0; i < 3'000'000; ++i) x = x * 1.0000001;
  EXPECT_GT(os::wall_seconds(), wall);
  EXPECT_GT(os::cpu_seconds(), cpu);
}

TEST(Process, PagesAreZeroAlignedAndCounted) {
  constexpr std::size_t bytes = (64u << 20) + 12345;
  auto* pages = static_cast<std::uint8_t*>(os::allocate_pages(bytes));
  ASSERT_NE(pages, nullptr);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(pages) % (2u << 20), 0u);
  for (std::size_t i = 0; i < bytes; i += 4096) {
    ASSERT_EQ(pages[i], 0);
    pages[i] = 1;
  }
  pages[bytes - 1] = 1;
  EXPECT_GE(os::peak_resident_bytes(), bytes);
  os::release_pages(pages, bytes);
  EXPECT_EQ(os::allocate_pages(~std::size_t{0} - 100), nullptr);
}

TEST(Process, LibrariesAreOpenedOrExplained) {
  std::string why;
  EXPECT_EQ(os::open_library("libvg-not-there.so", &why), nullptr);
  EXPECT_TRUE(contains(why, "libvg-not-there.so")) << why;
  void* c = os::open_library("libc.so.6", &why);
  ASSERT_NE(c, nullptr);
  EXPECT_NE(os::find_symbol(c, "getpid"), nullptr);
  EXPECT_EQ(os::find_symbol(c, "vg_no_such_symbol"), nullptr);
}

void expect_polite_interrupts() {
  os::catch_interrupts();
  if (os::interrupt_signal() != 0) ::_exit(2);
  ::raise(SIGTERM);
  if (os::interrupt_signal() != SIGTERM) ::_exit(3);
  ::raise(SIGINT);
  if (os::interrupt_signal() != SIGINT) ::_exit(4);
  ::raise(SIGINT);
  ::_exit(5);
}

TEST(ProcessDeathTest, TheSecondInterruptEndsIt) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_EXIT(expect_polite_interrupts(), testing::KilledBySignal(SIGINT), "");
}

}  // namespace
}  // namespace vg
