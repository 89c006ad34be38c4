// Every kernel table of this machine against the scalar one, and whole searches on several threads:
// a program of its own, so that sanitizers and emulators can run it. Exits 1 at the first
// difference and says which. What the scalar kernels should give is tested from Python.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "codes.h"
#include "graph.h"
#include "graph_build.h"
#include "graph_live.h"
#include "graph_read.h"
#include "kernels.h"
#include "made.h"
#include "page_cache.h"
#include "page_io.h"
#include "rotation.h"
#include "score.h"
#include "search.h"

using namespace memdb;

namespace {

void require(bool holds, const char* what, const char* kernels, uint32_t dim) {
  if (holds) return;
  std::printf("%s differs: %s, %u dimensions\n", what, kernels, dim);
  std::exit(1);
}

bool near(float a, float b, float size) { return std::fabs(a - b) <= 1e-5f * size; }

void compare_scans(const Kernels& kernels, uint32_t dim) {
  const uint32_t bytes = (dim + 63) / 64 * 8;
  const std::vector<uint8_t> groups = random_groups(bytes, 1);
  const std::vector<float> query = random_floats(dim);
  std::vector<uint8_t> entries(static_cast<size_t>(bytes) * 2 * kTableEntries);
  const QueryTables tables = query_tables(query.data(), dim, bytes, entries.data());
  const auto* factors =
      reinterpret_cast<const uint32_t*>(groups.data() + groups.size() - 4 * kGroupRows);
  uint32_t allowed[kGroupBlocks];
  for (uint32_t& mask : allowed) mask = static_cast<uint32_t>(next_number());
  for (uint32_t count : {1u, 2u, 3u, 32u}) {
    std::vector<uint16_t> blocks(count);
    for (uint32_t i = 0; i < count; ++i)
      blocks[i] = static_cast<uint16_t>((i * 5 + count) % kGroupBlocks);
    std::vector<float> keys[2];
    std::vector<uint32_t> masks[2];
    const Kernels* both[2] = {&kernels, scalar_kernels()};
    for (int i = 0; i < 2; ++i) {
      keys[i].resize(count * kBlockRows);
      masks[i].resize(count);
      both[i]->scan(groups.data(), factors, allowed, blocks.data(), count, tables, 0.25f,
                    keys[i].data(), masks[i].data());
    }
    require(masks[0] == masks[1], "scan's masks", kernels.name, dim);
    require(std::memcmp(keys[0].data(), keys[1].data(), keys[0].size() * 4) == 0, "scan's keys",
            kernels.name, dim);
  }
}

void compare_products(const Kernels& kernels, uint32_t dim) {
  const Kernels& scalar = *scalar_kernels();
  const std::vector<float> query = random_floats(dim), row = random_floats(dim);
  const std::vector<uint8_t> bytes = random_bytes(dim);
  std::vector<uint8_t> halves = random_bytes(2 * static_cast<size_t>(dim));
  for (size_t i = 1; i < halves.size(); i += 2) halves[i] &= 0xbf;  // no infinities
  const auto* floats = reinterpret_cast<const uint8_t*>(row.data());
  const float size = 128.0f * static_cast<float>(dim) + 1.0f;
  require(near(kernels.dot8(query.data(), bytes.data(), dim),
               scalar.dot8(query.data(), bytes.data(), dim), size),
          "dot8", kernels.name, dim);
  require(near(kernels.dot16(query.data(), halves.data(), dim),
               scalar.dot16(query.data(), halves.data(), dim), size),
          "dot16", kernels.name, dim);
  require(near(kernels.dot32(query.data(), floats, dim), scalar.dot32(query.data(), floats, dim),
               size),
          "dot32", kernels.name, dim);
  require(near(kernels.l2_8(query.data(), bytes.data(), 0.01f, dim),
               scalar.l2_8(query.data(), bytes.data(), 0.01f, dim), size),
          "l2_8", kernels.name, dim);
  require(near(kernels.l2_16(query.data(), halves.data(), 0.5f, dim),
               scalar.l2_16(query.data(), halves.data(), 0.5f, dim), size),
          "l2_16", kernels.name, dim);
  require(near(kernels.l2_32(query.data(), floats, 1.0f, dim),
               scalar.l2_32(query.data(), floats, 1.0f, dim), size),
          "l2_32", kernels.name, dim);
  const uint32_t packed = (dim + 3) / 4;
  std::vector<int8_t> strips(4 * static_cast<size_t>(packed));
  for (int8_t& level : strips) level = static_cast<int8_t>(next_number() % 255 - 127);
  require(kernels.dot2(strips.data(), bytes.data(), packed) ==
              scalar.dot2(strips.data(), bytes.data(), packed),
          "dot2", kernels.name, dim);
  require(kernels.hamming(bytes.data(), halves.data(), dim) ==
              scalar.hamming(bytes.data(), halves.data(), dim),
          "hamming", kernels.name, dim);
  std::vector<int8_t> left(dim), right(dim);
  for (uint32_t i = 0; i < dim; ++i) {
    left[i] = static_cast<int8_t>(next_number() % 255 - 127);
    right[i] = static_cast<int8_t>(next_number() % 255 - 127);
  }
  require(kernels.dot88(left.data(), right.data(), dim) ==
              scalar.dot88(left.data(), right.data(), dim),
          "dot88", kernels.name, dim);
  const uint32_t words = (dim + 63) / 64;
  const std::vector<uint8_t> code = random_bytes(8 * static_cast<size_t>(words));
  std::vector<uint64_t> planes(static_cast<size_t>(words) * kPlanes);
  for (uint64_t& word : planes) word = next_number();
  const uint8_t* const listed[1] = {code.data()};
  uint32_t sums[2];
  kernels.weigh(listed, 1, planes.data(), words, sums);
  scalar.weigh(listed, 1, planes.data(), words, sums + 1);
  require(sums[0] == sums[1], "weigh", kernels.name, dim);
  require(kernels.crc32c(bytes.data(), dim) == scalar.crc32c(bytes.data(), dim), "crc32c",
          kernels.name, dim);
}

// Searches of several threads over one space, as readers of one process make them.
void search_together(const Kernels& kernels, uint32_t dim, Precision precision, bool with_codes) {
  const uint32_t count = kGroupRows + 100, k = 5, queries = 6, bytes = (dim + 63) / 64 * 8;
  const std::vector<uint8_t> groups = random_groups(bytes, 2);
  const std::vector<uint8_t> records = random_records(kernels, dim, precision, count);
  const std::vector<uint8_t> allowed = random_bytes(count / 8);
  const std::vector<float> asked = random_floats(static_cast<size_t>(queries) * dim);
  std::vector<float> signs(static_cast<size_t>(kRotationRounds) * dim), centre(dim, 0.01f);
  for (float& sign : signs) sign = next_number() & 1 ? 1.0f : -1.0f;
  const Records view = {records.data(), count, records.size() / count, dim,
                        precision == Precision::kBits ? Metric::kHamming : Metric::kSquaredL2,
                        precision};
  const Codes codes = {groups.data(), 2, bytes};
  std::vector<std::vector<uint32_t>> slots(3, std::vector<uint32_t>(queries * k));
  std::vector<std::thread> threads;
  for (std::vector<uint32_t>& found : slots)
    threads.emplace_back([&]() {
      std::vector<float> distances(queries * k);
      SearchRequest request = {};
      request.codes = with_codes ? &codes : nullptr;
      request.records = &view;
      request.rough = !with_codes;
      request.queries = asked.data();
      request.signs = signs.data();
      request.centre = centre.data();
      request.allowed = {allowed.data(), allowed.size()};
      request.query_count = queries;
      request.k = k;
      request.keep = 50;
      request.threads = 2;
      request.slots = found.data();
      request.distances = distances.data();
      require(search(kernels, request) == kAllGood, "search", kernels.name, dim);
    });
  for (std::thread& thread : threads) thread.join();
  require(slots[0] == slots[1] && slots[1] == slots[2], "search by threads", kernels.name, dim);
}

// A file of these bytes that nobody else has.
class TempFile {
 public:
  explicit TempFile(const std::vector<uint8_t>& bytes) : file_(std::tmpfile()) {
    if (file_ == nullptr || std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size() ||
        std::fflush(file_) != 0) {
      std::printf("no temporary file\n");
      std::exit(1);
    }
  }
  ~TempFile() { std::fclose(file_); }
  int descriptor() const { return fileno(file_); }

 private:
  std::FILE* file_;
};

bool can_be_direct(const TempFile& file) {
  try {
    FileReader(file.descriptor(), 0, "", true);
    return true;
  } catch (const ReadError&) {
    return false;
  }
}

// The same walks by reading, while pages are dropped from a cache that is too small. They find as
// many as the mapped walks; of which, only chance estimates decide here: those of one page at a
// time agree with each other. Where whole pages are seen, walks inside the allowed set find no
// fewer; in the list of the others, who is not allowed may take the place of who is.
void read_together(const Kernels& kernels, const GraphRequest& mapped,
                   const std::vector<uint8_t>& pages, const std::vector<uint8_t>& records) {
  const TempFile page_file(pages), record_file(records);
  const size_t answers = static_cast<size_t>(mapped.query_count) * mapped.k;
  for (int way = 0; way < 3; ++way) {  // by the system's ring where it has one, and by threads
    const bool direct = way > 0 && can_be_direct(page_file), rings = way < 2;
    if (way == 1 && !direct) continue;
    const FileReader page_reader(page_file.descriptor(), 0, "pages", direct);
    const FileReader record_reader(record_file.descriptor(), 0, "records", direct);
    ReadPool pool(8, rings);
    PageCache cache(kPageBytes, 4 * kPageBytes);
    for (int turn = 0; turn < 3; ++turn) {
      const uint32_t depth = turn == 0 ? 1 : kMostDepth;
      const bool whole = turn == 2;
      ReadSources sources = {&page_reader, &cache, &record_reader, &pool, depth, whole};
      if (whole) sources.doubt = 2.0f / 3.0f;
      std::vector<std::thread> threads;
      std::vector<std::vector<uint32_t>> found(3, std::vector<uint32_t>(answers));
      for (std::vector<uint32_t>& slots : found)
        threads.emplace_back([&]() {
          std::vector<uint32_t> counts(mapped.query_count);
          std::vector<float> distances(answers);
          uint64_t counted[3];
          GraphRequest request = mapped;
          request.slots = slots.data();
          request.distances = distances.data();
          request.found = counts.data();
          request.counted = counted;
          require(search_graph_read(kernels, request, sources) == kAllGood, "a read walk",
                  kernels.name, request.records->dim);
          require(whole || std::memcmp(counts.data(), mapped.found, counts.size() * 4) == 0,
                  "how many walks find", kernels.name, request.records->dim);
          for (uint32_t i = 0; whole && i < mapped.query_count; ++i)
            require(counts[i] + (mapped.inside ? 0 : 1) >= mapped.found[i], "what whole pages find",
                    kernels.name, request.records->dim);
        });
      for (uint32_t page = 0; page < 200; ++page) {
        const uint32_t dropped = page % static_cast<uint32_t>(mapped.graph->count);
        cache.drop(&dropped, 1);
      }
      for (std::thread& thread : threads) thread.join();
      require(depth > 1 || (found[0] == found[1] && found[1] == found[2]), "walks that read",
              kernels.name, mapped.records->dim);
    }
    require(rings || !pool.has_rings(), "a pool of threads", kernels.name, mapped.records->dim);
    require(cache.bytes() <= cache.most_bytes() && page_reader.reads() > 0, "a cache",
            kernels.name, mapped.records->dim);
  }
}

// A graph that two threads link, put on pages and walked by three at once; then on damaged pages.
void walk_together(const Kernels& kernels, uint32_t dim) {
  const uint32_t count = 600, degree = 8, room = 10, k = 5, queries = 4;
  const uint32_t bytes = (dim + 63) / 64 * 8;
  std::vector<uint8_t> rows = random_bytes(static_cast<size_t>(count) * (bytes + 4));
  for (uint32_t slot = 0; slot < count; ++slot) {
    const uint32_t word = 0xbf803f00u;  // offset .5, slope -1
    std::memcpy(rows.data() + static_cast<size_t>(slot) * (bytes + 4) + bytes, &word, 4);
  }
  const RowCodes codes = {rows.data(), count, dim, bytes};
  const std::vector<uint8_t> records = random_records(kernels, dim, Precision::kInt8, count);
  const Records view = {records.data(), count,           records.size() / count,
                        dim,            Metric::kCosine, Precision::kInt8};
  const std::vector<RowShape> shapes(count, RowShape{0.01f, 1.0f, 0.0f, 0.0f});
  const Rows numbers = {reinterpret_cast<const int8_t*>(records.data()) + kRecordHead,
                        records.size() / count, count, dim, shapes.data()};
  std::vector<uint32_t> lists(static_cast<size_t>(count) * (room + 1)), slots(count);
  for (uint32_t slot = 0; slot < count; ++slot) slots[slot] = slot;
  const uint32_t entry[2] = {0, 300};
  std::vector<uint8_t> entry_rows(2 * codes.stride());
  for (size_t i = 0; i < 2; ++i)
    std::memcpy(entry_rows.data() + i * codes.stride(), codes.row(entry[i]), codes.stride());
  const Entries entries = {entry, entry_rows.data(), 2};
  std::vector<float> signs(static_cast<size_t>(kRotationRounds) * dim), centre(dim, 0.01f);
  for (float& sign : signs) sign = next_number() & 1 ? 1.0f : -1.0f;
  const LinkRequest link = {&codes, &numbers, {lists.data(), count, room}, entries,
                            centre.data(), slots.data(), count, degree, 20, 1.2f, 2};
  link_slots(kernels, link);
  trim_lists(kernels, link);
  std::vector<uint32_t> order(count);
  std::vector<uint8_t> reached(count);
  mark_reached(link.lists, entries, reached.data());
  order = slots;
  affinity_order(link.lists, entries, records_per_page(degree), order.data(), count);

  const uint32_t per_page = records_per_page(degree);
  const uint32_t page_count = (count + per_page - 1) / per_page;
  std::vector<uint8_t> pages(static_cast<size_t>(page_count) * kPageBytes);
  std::vector<uint32_t> places(count);
  for (uint32_t slot = 0; slot < count; ++slot) {
    const uint32_t* list = link.lists.list(slot);
    require(list[0] <= degree, "a trimmed list", kernels.name, dim);
    places[slot] = slot / per_page << 8 | slot % per_page;
    uint8_t* record = pages.data() + static_cast<size_t>(slot / per_page) * kPageBytes +
                      kPageHead + slot % per_page * graph_record_bytes(degree);
    const uint32_t head = slot | list[0] << kSlotBits;
    std::memcpy(record, &head, 4);
    for (uint32_t i = 0; i < list[0]; ++i) std::memcpy(record + 4 + 3 * i, list + 1 + i, 3);
  }
  const std::vector<uint8_t> allowed = random_bytes(count / 8);
  const std::vector<float> asked = random_floats(static_cast<size_t>(queries) * dim);
  for (int damaged = 0; damaged < 2; ++damaged) {
    for (uint32_t page = 0; page < page_count; ++page) {
      uint8_t* whole = pages.data() + static_cast<size_t>(page) * kPageBytes;
      for (uint32_t i = 0; damaged && i < kPageBytes - kPageHead; i += 7)
        whole[kPageHead + i] = static_cast<uint8_t>(next_number());
      std::memcpy(whole + 4, &page, 4);
      const uint32_t crc = kernels.crc32c(whole + 4, kPageBytes - 4);
      std::memcpy(whole, &crc, 4);
    }
    std::vector<std::atomic<uint8_t>> checked(page_count);
    const GraphPages graph = {pages.data(), page_count, degree, places.data(), count,
                              checked.data()};
    std::vector<std::vector<uint32_t>> found(3, std::vector<uint32_t>(queries * k));
    std::vector<std::thread> threads;
    for (std::vector<uint32_t>& answer : found)
      threads.emplace_back([&]() {
        for (const bool inside : {true, false}) {
          std::vector<float> distances(queries * k);
          std::vector<uint32_t> counts(queries);
          uint64_t counted[3];
          const GraphRequest request = {&graph, &codes, &view, entries, asked.data(),
                                        signs.data(), centre.data(),
                                        {allowed.data(), allowed.size()}, inside, queries, k, 20,
                                        1000, 2, answer.data(), distances.data(), counts.data(),
                                        counted};
          require(search_graph(kernels, request) == kAllGood, "a walk", kernels.name, dim);
        }
      });
    for (std::thread& thread : threads) thread.join();
    require(found[0] == found[1] && found[1] == found[2], "walks by threads", kernels.name, dim);
    for (const bool inside : {true, false}) {
      std::vector<float> distances(queries * k);
      std::vector<uint32_t> counts(queries);
      uint64_t counted[3];
      GraphRequest request = {&graph, &codes, &view, entries, asked.data(), signs.data(),
                              centre.data(), {allowed.data(), allowed.size()}, inside,
                              queries, k, 20, 1000, 2, found[0].data(), distances.data(),
                              counts.data(), counted};
      require(search_graph(kernels, request) == kAllGood, "a walk", kernels.name, dim);
      read_together(kernels, request, pages, records);
      request.beside = slots.data() + count - 70;
      request.beside_count = 70;
      request.beside_keep = 9;
      require(search_graph(kernels, request) == kAllGood, "beside", kernels.name, dim);
      read_together(kernels, request, pages, records);
    }
  }
}

// A graph in a file that two threads walk in a mapping while a third links rows into it, takes some
// out again, and writes the pages. What is on pages is hints: walks may find either of two states.
void change_while_walked(const Kernels& kernels, uint32_t dim) {
  const uint32_t count = 400, degree = 8, k = 5, queries = 4, bytes = (dim + 63) / 64 * 8;
  std::vector<uint8_t> rows = random_bytes(static_cast<size_t>(count) * (bytes + 4));
  for (uint32_t slot = 0; slot < count; ++slot) {
    const uint32_t word = 0xbf803f00u;  // offset .5, slope -1
    std::memcpy(rows.data() + static_cast<size_t>(slot) * (bytes + 4) + bytes, &word, 4);
  }
  const RowCodes codes = {rows.data(), count, dim, bytes};
  const std::vector<uint8_t> records = scattered_records(kernels, dim, count);
  const Records view = {records.data(), count,           records.size() / count,
                        dim,            Metric::kCosine, Precision::kInt8};
  std::vector<float> signs(static_cast<size_t>(kRotationRounds) * dim), centre(dim, 0.01f);
  for (float& sign : signs) sign = next_number() & 1 ? 1.0f : -1.0f;
  const uint32_t entry[1] = {0};
  const Entries entries = {entry, codes.row(0), 1};
  const uint32_t per_page = records_per_page(degree), page_count = count / per_page + 1;
  std::vector<uint32_t> places(count);
  for (uint32_t slot = 0; slot < count; ++slot)
    places[slot] = slot / per_page << 8 | slot % per_page;

  char name[] = "/tmp/agreement-XXXXXX";
  const int file = mkstemp(name);
  require(file >= 0 && unlink(name) == 0, "a file", kernels.name, dim);
  const size_t size = static_cast<size_t>(page_count) * kPageBytes;
  require(ftruncate(file, static_cast<off_t>(size)) == 0, "its length", kernels.name, dim);
  void* mapped = mmap(nullptr, size, PROT_READ, MAP_SHARED, file, 0);
  require(mapped != MAP_FAILED, "its mapping", kernels.name, dim);
  const auto* first = static_cast<const uint8_t*>(mapped);

  std::atomic<bool> done{false};
  const std::vector<uint8_t> allowed(count / 8, 0xff);
  const std::vector<float> asked = random_floats(static_cast<size_t>(queries) * dim);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 2; ++thread)
    threads.emplace_back([&, thread]() {
      std::vector<uint32_t> slots(queries * k), counts(queries);
      std::vector<float> distances(queries * k);
      do {
        std::vector<std::atomic<uint8_t>> checked(page_count);
        const GraphPages graph = {first, page_count, degree, places.data(), count, checked.data()};
        uint64_t counted[3];
        const GraphRequest request = {&graph, &codes, &view, entries, asked.data(), signs.data(),
                                      centre.data(), {allowed.data(), allowed.size()}, thread == 1,
                                      queries, k, 20, 1000, 1, slots.data(), distances.data(),
                                      counts.data(), counted};
        require(search_graph(kernels, request) == kAllGood, "a walk", kernels.name, dim);
        for (uint32_t i = 0; i < queries; ++i)
          for (uint32_t j = 0; j < counts[i]; ++j)
            require(slots[i * k + j] < count, "a slot", kernels.name, dim);
      } while (!done);
    });
  std::vector<std::atomic<uint8_t>> checked(page_count);
  const GraphPages graph = {first, page_count, degree, places.data(), count, checked.data()};
  const uint32_t at_once = 50, room = at_once * static_cast<uint32_t>(most_changed(degree, 20));
  std::vector<uint32_t> changed(room + at_once), at(room + at_once), numbers(room + at_once);
  std::vector<uint32_t> lists(static_cast<size_t>(room + at_once) * (degree + 1));
  std::vector<uint8_t> pages(static_cast<size_t>(page_count) * kPageBytes);
  const auto put = [&](uint64_t lists_count) {
    for (uint64_t i = 0; i < lists_count; ++i) at[i] = places[changed[i]];
    const uint64_t made = pages_with(kernels, graph, changed.data(), at.data(), lists.data(),
                                     lists_count, numbers.data(), pages.data());
    for (uint64_t i = 0; i < made; ++i) {
      const ssize_t written = pwrite(file, pages.data() + i * kPageBytes, kPageBytes,
                                     static_cast<off_t>(numbers[i]) * kPageBytes);
      require(written == static_cast<ssize_t>(kPageBytes), "a page", kernels.name, dim);
      checked[numbers[i]] = kUnchecked;
    }
  };
  std::vector<uint32_t> slots(at_once);
  for (uint32_t begin = 0; begin < count; begin += at_once) {
    for (uint32_t i = 0; i < at_once; ++i) slots[i] = begin + i;
    LiveRequest request = {&graph, &codes, &view, entries, signs.data(), centre.data(), 0.0f,
                           slots.data(), at_once, 20, 1.2f};
    const auto work = [&](const LiveRequest& one) {
      return link_in_place(kernels, one, {changed.data(), lists.data(), room});
    };
    uint64_t linked = 0;  // in turns: where the core is free, in vain at times, and at once
    const uint32_t patience_ms = begin / at_once % 3 == 0 ? 300 : 1;
    if (begin / at_once % 3 == 2 || !when_idle(request, patience_ms, work, linked))
      linked = work(request);
    put(linked);
    request.slots = slots.data() + 1;  // the entry stays
    request.slot_count = begin % (2 * at_once) == 0 ? at_once - 1 : 0;
    const uint64_t others = unlink_in_place(kernels, request, {changed.data(), lists.data(), room});
    for (uint64_t i = 0; i < request.slot_count; ++i) {
      changed[others + i] = request.slots[i];
      lists[(others + i) * (degree + 1)] = kErased;
    }
    put(others + request.slot_count);
  }
  std::vector<uint8_t> reached(count);
  mark_led_to(kernels, graph, entries, reached.data());
  require(reached[count - 1] == 1 && graph.record(kernels, at_once - 1) == nullptr, "who is left",
          kernels.name, dim);
  done = true;
  for (std::thread& thread : threads) thread.join();
  munmap(mapped, size);
  close(file);
}

}  // namespace

int main() {
  uint32_t tables = 0;
  for (uint32_t level = 0; const Kernels* kernels = kernels_at(level); ++level, ++tables) {
    for (uint32_t dim : {1u, 7u, 31u, 64u, 65u, 100u, 128u, 200u, 256u, 384u, 1000u, 8192u}) {
      compare_scans(*kernels, dim);
      compare_products(*kernels, dim);
    }
    for (uint32_t precision = 0; precision < kPrecisions; ++precision)
      for (bool with_codes : {true, false})
        search_together(*kernels, 100, static_cast<Precision>(precision), with_codes);
    for (uint32_t dim : {24u, 384u}) walk_together(*kernels, dim);
    for (uint32_t dim : {64u, 384u}) change_while_walked(*kernels, dim);
    std::printf("%s agrees\n", kernels->name);
  }
  std::printf("%u tables\n", tables);
  return 0;
}
