// Files: reading with limits, mapping, locking, and writing so that no reader ever sees half a file.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <system_error>

#include "tensor/error.h"
#include "tensor/os.h"

namespace vg::os {
namespace {

[[noreturn]] void fail_io(const std::string& path, const char* what, int reason) {
  fail(ErrorCode::io, "{}: {}{}", path, what, std::generic_category().message(reason));
}

int open_to_read(const std::string& path, struct stat* info) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail_io(path, "", errno);
  if (::fstat(fd, info) != 0) {
    const int reason = errno;
    ::close(fd);
    fail_io(path, "", reason);
  }
  if (S_ISDIR(info->st_mode)) {
    ::close(fd);
    fail(ErrorCode::bad_file, "{}: a folder (wanted a file)", path);
  }
  return fd;
}

// As read(2), but fewer bytes come back only at the end of the file.
std::size_t read_all(int fd, void* to, std::size_t bytes, const std::string& path) {
  constexpr std::size_t kPiece = std::size_t{1} << 30;  // Linux moves at most 2 GiB a call
  std::size_t done = 0;
  while (done < bytes) {
    const ssize_t n = ::read(fd, static_cast<char*>(to) + done, std::min(kPiece, bytes - done));
    if (n == 0) break;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_io(path, "read: ", errno);
    done += static_cast<std::size_t>(n);
  }
  return done;
}

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

// What a chain of symbolic links ends at, which need not exist.
std::string follow_links(std::string path) {
  const std::string given = path;
  char buffer[4096];
  for (int links = 0;; ++links) {
    const ssize_t n = ::readlink(path.c_str(), buffer, sizeof buffer);
    if (n < 0) return path;
    if (links == 40 || n == static_cast<ssize_t>(sizeof buffer)) fail_io(given, "", ELOOP);
    const std::string to(buffer, static_cast<std::size_t>(n));
    path = to.starts_with('/') ? to : fmt::format("{}/{}", folder_of(path), to);
  }
}

// Some file systems and devices cannot sync; they say EINVAL, and nothing is lost by believing them.
bool sync(int fd) { return ::fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP || errno == EROFS; }

}  // namespace

InputFile::InputFile(const std::string& path) : path_(path) {
  struct stat info;
  fd_ = open_to_read(path, &info);
  size_ = static_cast<std::uint64_t>(info.st_size);
}

InputFile::~InputFile() { ::close(fd_); }

std::size_t InputFile::read(void* to, std::size_t bytes) { return read_all(fd_, to, bytes, path_); }

void InputFile::seek(std::uint64_t offset) {
  if (::lseek(fd_, static_cast<off_t>(offset), SEEK_SET) < 0) fail_io(path_, "seek: ", errno);
}

std::vector<std::byte> read_file(const std::string& path, std::uint64_t limit) {
  InputFile file(path);
  if (file.size() > limit) fail(ErrorCode::bad_file, "{}: {} bytes (wanted at most {})", path, file.size(), limit);
  std::vector<std::byte> bytes(file.size());
  std::size_t done = file.read(bytes.data(), bytes.size());
  // Pipes and /proc have no size, and a file may grow under our hands: read on to the real end.
  while (done == bytes.size()) {
    bytes.resize(done + 65536);
    done += file.read(bytes.data() + done, 65536);
    if (done > limit) fail(ErrorCode::bad_file, "{}: more than {} bytes", path, limit);
  }
  bytes.resize(done);
  return bytes;
}

std::string read_text(const std::string& path, std::uint64_t limit) {
  const std::vector<std::byte> bytes = read_file(path, limit);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  struct stat old;
  const bool exists = ::stat(path_.c_str(), &old) == 0;
  if (exists && S_ISDIR(old.st_mode)) fail_io(path_, "", EISDIR);
  if (exists && !S_ISREG(old.st_mode)) {
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd_ < 0) fail_io(path_, "", errno);
    return;
  }
  target_ = follow_links(path_);
  static std::atomic<unsigned> counter{0};
  for (int attempt = 0; fd_ < 0; ++attempt) {  // a process of the same number may have died here before
    temporary_ = fmt::format("{}.tmp-{}-{}", target_, ::getpid(), counter++);
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ < 0 && (errno != EEXIST || attempt == 1000)) fail_io(path_, "", errno);
  }
  if (exists) static_cast<void>(::fchmod(fd_, old.st_mode & 07777));  // best effort: the new file is ours in any case
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::stop(const char* what, int reason) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  fail_io(path_, what, reason);
}

void AtomicFile::write(const void* data, std::size_t bytes) {
  constexpr std::size_t kPiece = std::size_t{1} << 30;
  require(fd_ >= 0, "{}: written to after it was closed", path_);
  for (const char* from = static_cast<const char*>(data); bytes > 0;) {
    const ssize_t n = ::write(fd_, from, std::min(kPiece, bytes));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) stop("write: ", errno);
    from += n;
    bytes -= static_cast<std::size_t>(n);
  }
}

void AtomicFile::commit() {
  require(fd_ >= 0, "{}: committed after it was closed", path_);
  if (!sync(fd_)) stop("sync: ", errno);
  const int fd = fd_;
  fd_ = -1;
  if (::close(fd) != 0 && errno != EINTR) stop("close: ", errno);
  if (temporary_.empty()) return;
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) stop("rename: ", errno);
  temporary_.clear();
  // The new name itself must survive a power cut.
  const int folder = ::open(folder_of(target_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return;  // a folder that we may write to but not read: the rename stands
  const bool synced = sync(folder);
  const int reason = errno;
  ::close(folder);
  if (!synced) fail_io(path_, "sync of the folder: ", reason);
}

void write_file_atomic(const std::string& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

MappedFile::MappedFile(const std::string& path) {
  struct stat info;
  const int fd = open_to_read(path, &info);
  size_ = static_cast<std::size_t>(info.st_size);
  void* data = size_ ? ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0) : nullptr;
  const int reason = errno;
  ::close(fd);
  if (data == MAP_FAILED) fail_io(path, "map: ", reason);
  data_ = static_cast<const std::byte*>(data);
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

std::shared_ptr<void> try_lock(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) fail_io(path, "", errno);
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const int reason = errno;
    ::close(fd);
    if (reason == EWOULDBLOCK) return nullptr;
    fail_io(path, "lock: ", reason);
  }
  return {new int(fd), [](int* held) {
            ::close(*held);
            delete held;
          }};
}

}  // namespace vg::os
