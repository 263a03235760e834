// The only place that talks POSIX: files, terminals, signals, clocks. Everything throws ErrorCode::io with the path and the system's reason.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace vg::os {

// A whole file. Throws io ("PATH: No such file or directory"), or bad_file if it is a directory or longer than `limit`.
std::vector<std::byte> read_file(const std::string& path, std::uint64_t limit = ~std::uint64_t{0});
std::string read_text(const std::string& path, std::uint64_t limit = 256u << 20);

// Writes so that a reader or a crash sees the old file or the new one, never a part: temporary file in the same folder, fsync, rename, fsync of
// the folder. On any error the temporary file is removed, the old file is untouched, and Error(io) names the path and the reason. A symbolic
// link is followed, so the file that it points to is replaced. What is not a file (/dev/null, a pipe) is written to directly.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();  // without commit(): the temporary file is removed
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(const void* data, std::size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();

 private:
  void stop(const char* what, int reason);  // removes the temporary file and throws

  std::string path_, target_, temporary_;  // as given; after following links; empty when written to directly
  int fd_ = -1;
};
void write_file_atomic(const std::string& path, std::string_view content);

// A file mapped read-only. The bytes stay valid when the file is replaced by rename (as AtomicFile does).
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// Forward-only reading of a file in pieces; `size` is what the file held when it was opened.
class InputFile {
 public:
  explicit InputFile(const std::string& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  std::size_t read(void* to, std::size_t bytes);  // fewer only at the end of the file
  void seek(std::uint64_t offset);
  std::uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int fd_ = -1;
  std::uint64_t size_ = 0;
};

// An exclusive lock on `path` (created if missing) that ends with the process; nullptr if another process holds it.
std::shared_ptr<void> try_lock(const std::string& path);

// Zeroed memory from the kernel in whole pages, aligned to 2 MiB with huge pages asked for: a page fault per 4 KiB costs more than the arithmetic of
// a small layer. nullptr when there is none. release_pages() takes the same count and gives them back at once.
void* allocate_pages(std::size_t bytes);
void release_pages(void* data, std::size_t bytes);

// Zeroed pages for a stack, kept for the life of the process, with an unreadable page below: running past the end stops at once. nullptr: none.
void* allocate_stack(std::size_t bytes);

bool is_terminal(int fd);
int terminal_columns(int fd);           // 80 when unknown
double wall_seconds();                  // monotonic
double cpu_seconds();                   // of all threads of this process
std::uint64_t peak_resident_bytes();    // VmHWM
std::uint64_t physical_memory_bytes();  // within the cgroup's limit
int hardware_threads();                 // within affinity mask and cgroup quota
std::string cpu_name();
std::string executable_folder();
std::string environment(const char* name);  // "" when unset

// After this, SIGINT and SIGTERM set a flag instead of ending the process; a second SIGINT ends it at once.
void catch_interrupts();
int interrupt_signal();  // 0, SIGINT or SIGTERM

// A shared library (RTLD_NOW | RTLD_LOCAL), kept for the life of the process. `error` receives the loader's message on failure.
void* open_library(const std::string& path, std::string* error);
void* find_symbol(void* library, const char* name);

}  // namespace vg::os
