// A file as one text, without copying it.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <system_error>

namespace skeleton_io {

class MappedFile {
 public:
  explicit MappedFile(const char* path) {
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) fail();
    map(file);
    const int error = errno;
    close(file);
    if (data_ == MAP_FAILED) fail(error);
  }

  ~MappedFile() {
    if (data_) munmap(data_, size_);
  }

  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::string_view text() const { return {static_cast<const char*>(data_), size_}; }

 private:
  void map(int file) {
    struct stat status;
    if (fstat(file, &status) < 0) {
      data_ = MAP_FAILED;
    } else if (S_ISDIR(status.st_mode)) {
      errno = EISDIR;
      data_ = MAP_FAILED;
    } else if (status.st_size > 0) {  // an empty file cannot be mapped
      size_ = status.st_size;
      data_ = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
    }
  }

  [[noreturn]] static void fail(int error = errno) {
    throw std::system_error(error, std::generic_category());
  }

  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace skeleton_io
