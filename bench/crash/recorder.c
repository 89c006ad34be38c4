// Preloaded into a process, writes down what it does to the files under one folder, in order:
// writes with their bytes, sizes, names and syncs. `recording.py` reads it; what a disk may make of
// it after a crash is not known here. For Linux.
//
// MEMDB_RECORD_ROOT names the folder (absolute, no links in it), MEMDB_RECORD the trace, which
// must lie outside of it. Each call and its event are made under one lock, so that the order of
// events is the order of their effects. What cannot be followed (a writable shared mapping, a hard
// link) is an event of its own, which fails the replay, instead of a gap.
//
//   event := kind u32 | handle u32 | at u64 | size u64 | length u32 | bytes[length]
//
// A handle is one opening of a file; `at` and `size` are what the kind says below.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
  kOpen = 1,      // bytes: path; at: flags of open(2); size: 1 a file that was made, 2 a directory
  kWrite = 2,     // at: offset; bytes: what was written
  kSize = 3,      // size: of the file from now on
  kHole = 4,      // at: offset; size: bytes that read as zeros from now on
  kSync = 5,      // of the handle's file, or of a directory's names
  kRename = 6,    // bytes: from, a zero, to
  kUnlink = 7,    // bytes: path of a file or an empty directory
  kDirectory = 8, // bytes: path of one that was made
  kResize = 9,    // bytes: path; size: by name
  kUnknown = 10,  // bytes: what was done that this file cannot follow
};

#define MOST_DESCRIPTORS 65536
static uint32_t handle_of[MOST_DESCRIPTORS];  // 0: not under the root
static uint32_t handles;
static int trace = -1;
static char root[PATH_MAX];
static size_t root_length;
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

#define REAL(name) ((__typeof__(&name))real(#name))
static void* real(const char* name) {
  void* found = dlsym(RTLD_NEXT, name);
  if (!found) {
    fprintf(stderr, "recorder: no %s\n", name);
    abort();
  }
  return found;
}

__attribute__((constructor)) static void begin(void) {
  const char* where = getenv("MEMDB_RECORD_ROOT");
  const char* to = getenv("MEMDB_RECORD");
  if (!where || !to || strlen(where) >= PATH_MAX) return;
  strcpy(root, where);
  root_length = strlen(root);
  trace = REAL(open)(to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  unsetenv("LD_PRELOAD");  // children are not followed
}

static void put(const void* bytes, size_t length) {
  const char* at = bytes;
  while (length) {
    const ssize_t done = REAL(write)(trace, at, length);
    if (done <= 0) abort();  // half a trace would pass for a whole one
    at += done;
    length -= (size_t)done;
  }
}

static void event(uint32_t kind, uint32_t handle, uint64_t at, uint64_t size, const void* bytes,
                  size_t length) {
  uint8_t head[28];
  const uint32_t count = (uint32_t)length;
  memcpy(head, &kind, 4);
  memcpy(head + 4, &handle, 4);
  memcpy(head + 8, &at, 8);
  memcpy(head + 16, &size, 8);
  memcpy(head + 24, &count, 4);
  put(head, sizeof head);
  put(bytes, length);
}

static void unknown(const char* what) { event(kUnknown, 0, 0, 0, what, strlen(what)); }

static int is_under(const char* path) {
  return trace >= 0 && strncmp(path, root, root_length) == 0 &&
         (path[root_length] == '/' || path[root_length] == 0);
}

static int path_of(int descriptor, char* out) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  const ssize_t length = readlink(link, out, PATH_MAX - 1);
  if (length < 0) return 0;
  out[length] = 0;
  return 1;
}

// Fills `out` with the whole path; returns whether it is under the root.
static int resolve(int directory, const char* path, char* out) {
  if (trace < 0) return 0;
  if (path[0] == '/') {
    snprintf(out, PATH_MAX, "%s", path);
  } else {
    char base[PATH_MAX];
    if (directory == AT_FDCWD ? !getcwd(base, sizeof base) : !path_of(directory, base)) return 0;
    if (snprintf(out, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) return 0;
  }
  return is_under(out);
}

// The handle of a descriptor under the root, else 0.
static uint32_t handle(int descriptor) {
  if (trace < 0 || descriptor < 0) return 0;
  const uint32_t known = descriptor < MOST_DESCRIPTORS ? handle_of[descriptor] : 0;
  char path[PATH_MAX];
  if (!known && path_of(descriptor, path) && is_under(path)) unknown("a copied descriptor");
  return known;
}

// --- opening and closing --------------------------------------------------------------------

static int opened(int directory, const char* path, int flags, mode_t mode) {
  char whole[PATH_MAX];
  if (!resolve(directory, path, whole)) return REAL(openat)(directory, path, flags, mode);
  pthread_mutex_lock(&lock);
  struct stat status;
  const int existed = stat(whole, &status) == 0;
  const int descriptor = REAL(openat)(directory, path, flags, mode);
  const int problem = errno;
  if (descriptor >= MOST_DESCRIPTORS) abort();
  if (descriptor >= 0) {
    handle_of[descriptor] = ++handles;
    fstat(descriptor, &status);
    const uint64_t is = S_ISDIR(status.st_mode) ? 2 : !existed;
    event(kOpen, handles, (uint64_t)flags, is, whole, strlen(whole));
    if ((flags & O_TRUNC) && existed) event(kSize, handles, 0, 0, "", 0);
  }
  pthread_mutex_unlock(&lock);
  errno = problem;
  return descriptor;
}

#define MODE(flags)                                     \
  mode_t mode = 0;                                      \
  if ((flags) & (O_CREAT | O_TMPFILE)) {                \
    va_list more;                                       \
    va_start(more, flags);                              \
    mode = va_arg(more, mode_t);                        \
    va_end(more);                                       \
  }

int open(const char* path, int flags, ...) {
  MODE(flags)
  return opened(AT_FDCWD, path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  MODE(flags)
  return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}
int openat(int directory, const char* path, int flags, ...) {
  MODE(flags)
  return opened(directory, path, flags, mode);
}
int openat64(int directory, const char* path, int flags, ...) {
  MODE(flags)
  return opened(directory, path, flags | O_LARGEFILE, mode);
}
int __open_2(const char* path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int __open64_2(const char* path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int creat(const char* path, mode_t mode) {
  return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int close(int descriptor) {
  if (trace >= 0 && descriptor == trace) return 0;
  if (descriptor < 0 || descriptor >= MOST_DESCRIPTORS || !handle_of[descriptor])
    return REAL(close)(descriptor);
  pthread_mutex_lock(&lock);
  handle_of[descriptor] = 0;
  const int done = REAL(close)(descriptor);
  pthread_mutex_unlock(&lock);
  return done;
}

// --- writing --------------------------------------------------------------------------------

static void gather(uint32_t of, const struct iovec* parts, int count, uint64_t at, ssize_t done) {
  for (int i = 0; i < count && done > 0; ++i) {
    const size_t length = parts[i].iov_len < (size_t)done ? parts[i].iov_len : (size_t)done;
    event(kWrite, of, at, 0, parts[i].iov_base, length);
    at += length;
    done -= (ssize_t)length;
  }
}

// Where a write without an offset goes.
static uint64_t position(int descriptor) {
  struct stat status;
  if ((fcntl(descriptor, F_GETFL) & O_APPEND) && fstat(descriptor, &status) == 0)
    return (uint64_t)status.st_size;
  return (uint64_t)lseek(descriptor, 0, SEEK_CUR);
}

static ssize_t written(int descriptor, const struct iovec* parts, int count, int64_t at) {
  pthread_mutex_lock(&lock);
  const uint32_t of = handle(descriptor);
  const uint64_t where = at >= 0 || !of ? (uint64_t)at : position(descriptor);
  const ssize_t done = at >= 0 ? REAL(pwritev)(descriptor, parts, count, at)
                               : REAL(writev)(descriptor, parts, count);
  const int problem = errno;
  if (of) gather(of, parts, count, where, done);
  pthread_mutex_unlock(&lock);
  errno = problem;
  return done;
}

ssize_t write(int descriptor, const void* bytes, size_t length) {
  if (!handle(descriptor)) return REAL(write)(descriptor, bytes, length);
  const struct iovec part = {(void*)bytes, length};
  return written(descriptor, &part, 1, -1);
}
ssize_t writev(int descriptor, const struct iovec* parts, int count) {
  if (!handle(descriptor)) return REAL(writev)(descriptor, parts, count);
  return written(descriptor, parts, count, -1);
}
ssize_t pwrite(int descriptor, const void* bytes, size_t length, off_t at) {
  if (!handle(descriptor)) return REAL(pwrite)(descriptor, bytes, length, at);
  const struct iovec part = {(void*)bytes, length};
  return written(descriptor, &part, 1, at);
}
ssize_t pwrite64(int descriptor, const void* bytes, size_t length, off64_t at) {
  return pwrite(descriptor, bytes, length, at);
}
ssize_t pwritev(int descriptor, const struct iovec* parts, int count, off_t at) {
  if (!handle(descriptor)) return REAL(pwritev)(descriptor, parts, count, at);
  return written(descriptor, parts, count, at);
}
ssize_t pwritev64(int descriptor, const struct iovec* parts, int count, off64_t at) {
  return pwritev(descriptor, parts, count, at);
}

ssize_t pwritev2(int descriptor, const struct iovec* parts, int count, off_t at, int flags) {
  if (!handle(descriptor)) return REAL(pwritev2)(descriptor, parts, count, at, flags);
  if (flags) unknown("pwritev2 with flags");
  return written(descriptor, parts, count, at);
}
ssize_t pwritev64v2(int descriptor, const struct iovec* parts, int count, off64_t at,
                    int flags) {
  return pwritev2(descriptor, parts, count, at, flags);
}

// What the system copied by itself is read back.
static void read_back(uint32_t of, int descriptor, uint64_t at, ssize_t done) {
  char path[PATH_MAX], part[65536];
  if (!path_of(descriptor, path)) return unknown("a copy that cannot be read back");
  const int again = REAL(open)(path, O_RDONLY | O_CLOEXEC);
  while (done > 0) {
    const size_t wanted = (size_t)done < sizeof part ? (size_t)done : sizeof part;
    const ssize_t got = pread(again, part, wanted, (off_t)at);
    if (got <= 0) {
      unknown("a copy that cannot be read back");
      break;
    }
    event(kWrite, of, at, 0, part, (size_t)got);
    at += (uint64_t)got;
    done -= got;
  }
  REAL(close)(again);
}

ssize_t sendfile(int out, int in, off_t* offset, size_t count) {
  if (!handle(out)) return REAL(sendfile)(out, in, offset, count);
  pthread_mutex_lock(&lock);
  const uint64_t at = position(out);
  const ssize_t done = REAL(sendfile)(out, in, offset, count);
  const int problem = errno;
  read_back(handle(out), out, at, done);
  pthread_mutex_unlock(&lock);
  errno = problem;
  return done;
}
ssize_t sendfile64(int out, int in, off64_t* offset, size_t count) {
  return sendfile(out, in, offset, count);
}
ssize_t copy_file_range(int in, off64_t* from, int out, off64_t* to, size_t count,
                        unsigned flags) {
  if (!handle(out)) return REAL(copy_file_range)(in, from, out, to, count, flags);
  pthread_mutex_lock(&lock);
  const uint64_t at = to ? (uint64_t)*to : position(out);
  const ssize_t done = REAL(copy_file_range)(in, from, out, to, count, flags);
  const int problem = errno;
  read_back(handle(out), out, at, done);
  pthread_mutex_unlock(&lock);
  errno = problem;
  return done;
}

void* mmap(void* at, size_t length, int rights, int flags, int descriptor, off_t offset) {
  if (trace >= 0 && descriptor >= 0 && (flags & MAP_SHARED) && (rights & PROT_WRITE)) {
    char path[PATH_MAX];
    const char* name = path_of(descriptor, path) ? strrchr(path, '/') : NULL;
    // LMDB's table of readers: made anew by whoever opens the environment first.
    if (name && is_under(path) && strcmp(name, "/lock.mdb")) unknown("a writable mapping");
  }
  return REAL(mmap)(at, length, rights, flags, descriptor, offset);
}
void* mmap64(void* at, size_t length, int rights, int flags, int descriptor, off64_t offset) {
  return mmap(at, length, rights, flags, descriptor, offset);
}

// --- sizes and holes ------------------------------------------------------------------------

int ftruncate(int descriptor, off_t size) {
  pthread_mutex_lock(&lock);
  const int done = REAL(ftruncate)(descriptor, size);
  const int problem = errno;
  if (done == 0 && handle(descriptor))
    event(kSize, handle(descriptor), 0, (uint64_t)size, "", 0);
  pthread_mutex_unlock(&lock);
  errno = problem;
  return done;
}
int ftruncate64(int descriptor, off64_t size) { return ftruncate(descriptor, size); }

int truncate(const char* path, off_t size) {
  char whole[PATH_MAX];
  pthread_mutex_lock(&lock);
  const int done = REAL(truncate)(path, size);
  const int problem = errno;
  if (done == 0 && resolve(AT_FDCWD, path, whole))
    event(kResize, 0, 0, (uint64_t)size, whole, strlen(whole));
  pthread_mutex_unlock(&lock);
  errno = problem;
  return done;
}
int truncate64(const char* path, off64_t size) { return truncate(path, size); }

int fallocate(int descriptor, int mode, off_t at, off_t length) {
  pthread_mutex_lock(&lock);
  const int done = REAL(fallocate)(descriptor, mode, at, length);
  const int problem = errno;
  const uint32_t of = handle(descriptor);
  if (done == 0 && of) {
    if (mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE))
      event(kHole, of, (uint64_t)at, (uint64_t)length, "", 0);
    else
      unknown("fallocate that is no hole");
  }
  pthread_mutex_unlock(&lock);
  errno = problem;
  return done;
}
int fallocate64(int descriptor, int mode, off64_t at, off64_t length) {
  return fallocate(descriptor, mode, at, length);
}
int posix_fallocate(int descriptor, off_t at, off_t length) {
  if (handle(descriptor)) unknown("posix_fallocate");
  return REAL(posix_fallocate)(descriptor, at, length);
}

// --- syncs ----------------------------------------------------------------------------------

static int synced(int descriptor, int (*how)(int)) {
  if (!handle(descriptor)) return how(descriptor);
  pthread_mutex_lock(&lock);
  const int done = how(descriptor);
  const int problem = errno;
  if (done == 0) event(kSync, handle(descriptor), 0, 0, "", 0);
  pthread_mutex_unlock(&lock);
  errno = problem;
  return done;
}
int fsync(int descriptor) { return synced(descriptor, REAL(fsync)); }
int fdatasync(int descriptor) { return synced(descriptor, REAL(fdatasync)); }

// --- names ----------------------------------------------------------------------------------

static int renamed(int from_directory, const char* from, int to_directory, const char* to,
                   unsigned flags) {
  char pair[2 * PATH_MAX];
  pthread_mutex_lock(&lock);
  const int inside = resolve(from_directory, from, pair);
  char* second = pair + strlen(inside ? pair : "") + 1;
  const int arrives = resolve(to_directory, to, second);
  const int done = flags ? REAL(renameat2)(from_directory, from, to_directory, to, flags)
                         : REAL(renameat)(from_directory, from, to_directory, to);
  const int problem = errno;
  if (done == 0 && (inside || arrives)) {
    if (inside && arrives && !flags)
      event(kRename, 0, 0, 0, pair, (size_t)(second - pair) + strlen(second));
    else
      unknown("a name that crosses the root, or is exchanged");
  }
  pthread_mutex_unlock(&lock);
  errno = problem;
  return done;
}
int rename(const char* from, const char* to) { return renamed(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_directory, const char* from, int to_directory, const char* to) {
  return renamed(from_directory, from, to_directory, to, 0);
}
int renameat2(int from_directory, const char* from, int to_directory, const char* to,
              unsigned flags) {
  return renamed(from_directory, from, to_directory, to, flags);
}

static int removed(int directory, const char* path, int flags) {
  char whole[PATH_MAX];
  pthread_mutex_lock(&lock);
  const int done = REAL(unlinkat)(directory, path, flags);
  const int problem = errno;
  if (done == 0 && resolve(directory, path, whole))
    event(kUnlink, 0, 0, 0, whole, strlen(whole));
  pthread_mutex_unlock(&lock);
  errno = problem;
  return done;
}
int unlink(const char* path) { return removed(AT_FDCWD, path, 0); }
int rmdir(const char* path) { return removed(AT_FDCWD, path, AT_REMOVEDIR); }
int unlinkat(int directory, const char* path, int flags) {
  return removed(directory, path, flags);
}
int remove(const char* path) {
  struct stat status;
  if (lstat(path, &status) == 0 && S_ISDIR(status.st_mode)) return rmdir(path);
  return unlink(path);
}

static int made(int directory, const char* path, mode_t mode) {
  char whole[PATH_MAX];
  pthread_mutex_lock(&lock);
  const int done = REAL(mkdirat)(directory, path, mode);
  const int problem = errno;
  if (done == 0 && resolve(directory, path, whole))
    event(kDirectory, 0, 0, 0, whole, strlen(whole));
  pthread_mutex_unlock(&lock);
  errno = problem;
  return done;
}
int mkdir(const char* path, mode_t mode) { return made(AT_FDCWD, path, mode); }
int mkdirat(int directory, const char* path, mode_t mode) { return made(directory, path, mode); }

static int linked(const char* to) {
  char whole[PATH_MAX];
  if (resolve(AT_FDCWD, to, whole)) unknown("a link");
  return 0;
}
int link(const char* from, const char* to) { return linked(to), REAL(link)(from, to); }
int symlink(const char* from, const char* to) { return linked(to), REAL(symlink)(from, to); }
