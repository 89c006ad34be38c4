// The native code of storage against plain forms of itself: a program of its own, so that
// sanitizers and emulators can run it. Exits 1 at the first difference and says which.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "blake2b.h"
#include "crc32c.h"
#include "row_sets.h"
#include "row_union.h"
#include "score.h"
#include "seal.h"
#include "sorted_runs.h"
#include "terms.h"

using namespace memdb_storage;

namespace {

uint64_t state = 1;

uint64_t next_number() {  // SplitMix64
  state += 0x9E3779B97F4A7C15ULL;
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

void require(bool holds, const char* what, size_t size) {
  if (holds) return;
  std::printf("%s differs at %zu bytes\n", what, size);
  std::exit(1);
}

// Random bytes in a buffer of exactly their size, so that a sanitizer sees a step beyond it.
struct Buffer {
  std::unique_ptr<uint8_t[]> data;
  size_t size;

  explicit Buffer(size_t count) : data(new uint8_t[count]), size(count) {
    for (size_t i = 0; i < count; ++i) data[i] = static_cast<uint8_t>(next_number());
  }
  Bytes view() const { return {data.get(), size}; }
};

uint32_t crc32c_bitwise(uint32_t crc, const uint8_t* data, size_t size) {
  for (size_t i = 0; i < size; ++i) {
    crc ^= data[i];
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1)));
  }
  return crc;
}

void check_crc32c() {
  const Crc32c known[] = {&crc32c_tables, crc32c_sse42(), crc32c_arm(), crc32c_best()};
  for (size_t size = 0; size < 70; ++size) {
    const Buffer bytes(size);
    for (const Crc32c update : known) {
      if (update == nullptr) continue;
      const size_t cut = size / 3;
      const uint32_t found =
          update(update(~0u, bytes.data.get(), cut), bytes.data.get() + cut, size - cut);
      require(found == crc32c_bitwise(~0u, bytes.data.get(), size), "crc32c", size);
    }
  }
}

void check_seal() {
  for (const size_t size : {0, 1, 7, 1895, 1896, 1897, 4071, 4072, 4073, 9000}) {
    const Buffer key(size % 23 + 1), payload(size);
    Buffer out(sealed_size(size));
    seal(key.view(), payload.view(), out.data.get());
    require(out.size <= kSmallMaxBytes || (out.size + kPageHeaderBytes) % kPageBytes == 0,
            "the size rule", size);
    Bytes found;
    require(unseal(key.view(), out.view(), &found) && found.size == size &&
                std::memcmp(found.data, payload.data.get(), size) == 0,
            "seal", size);
    out.data[next_number() % out.size] ^= 1;
    require(!unseal(key.view(), out.view(), &found), "a damaged value", size);
    const Buffer other(size);
    require(!unseal(key.view(), other.view(), &found), "a random value", size);
  }
}

void check_scores() {
  float norm[256];
  for (float& one : norm) one = 0.5f + static_cast<float>(next_number() % 1000) / 250.0f;
  for (const size_t count : {0, 1, 2, 17, 300}) {
    const size_t rows = 7 * count + 1;
    Buffer postings(count * kPostingBytes);
    std::unique_ptr<float[]> scores(new float[rows]), expected(new float[rows]);
    for (size_t row = 0; row < rows; ++row) scores[row] = expected[row] = 0.25f;
    for (size_t i = 0; i < count; ++i) {
      uint8_t* posting = postings.data.get() + i * kPostingBytes;
      const uint32_t row = static_cast<uint32_t>(7 * i + next_number() % 7);
      for (int byte = 0; byte < 4; ++byte) posting[byte] = static_cast<uint8_t>(row >> (8 * byte));
      const float tf = posting[4];
      const float part = tf / (tf + norm[posting[5]]);
      expected[row] += part * 3.5f;
    }
    const uint64_t end = postings_end(postings.data.get(), count);
    require(end <= rows && (count == 0) == (end == 0), "postings_end", count);
    add_scores(postings.data.get(), count, norm, 3.5f, scores.get());
    require(std::memcmp(scores.get(), expected.get(), rows * sizeof(float)) == 0, "scores", count);
    clear_scores(postings.data.get(), count, scores.get());
    for (size_t i = 0; i < count; ++i) {
      const uint32_t row = posting_row(postings.data.get() + i * kPostingBytes);
      require(scores[row] == 0.0f, "clear_scores", count);
    }
  }
}

// Rows that make arrays, runs and bits, near and far apart.
std::set<uint32_t> random_rows() {
  std::set<uint32_t> rows;
  const size_t parts = 1 + next_number() % 5;
  for (size_t part = 0; part < parts; ++part) {
    const uint32_t first = static_cast<uint32_t>(next_number()) >> (next_number() % 24);
    const uint32_t step = 1 + next_number() % 3, count = 1 + next_number() % 700;
    for (uint32_t i = 0; i < count; ++i) rows.insert(first + i * step);
  }
  return rows;
}

Buffer copied(const Payload& bytes) {
  Buffer made(bytes.size());
  std::copy(bytes.begin(), bytes.end(), made.data.get());
  return made;
}

std::vector<uint32_t> rows_in(const std::vector<Interval>& intervals) {
  std::vector<uint32_t> rows;
  for (const Interval& one : intervals)
    for (uint64_t row = one.first; row <= one.last; ++row)
      rows.push_back(static_cast<uint32_t>(row));
  return rows;
}

void check_row_sets() {
  for (int round = 0; round < 100; ++round) {
    std::set<uint32_t> all = random_rows();
    const std::set<uint32_t> more = random_rows();
    Payload block, extended;
    const bool fits = new_block({all.begin(), all.end()}, &block);
    if (!fits || block[0] != 'R') continue;
    require(block.size() <= kSmallPayloadMaxBytes, "a block's size", block.size());
    const Buffer exact = copied(block);
    if (!extended_block(exact.view(), 0, {more.begin(), more.end()}, &extended)) continue;
    all.insert(more.begin(), more.end());
    const Buffer after = copied(extended);
    std::vector<Interval> found;
    require(read_roaring({after.data.get() + 1, after.size - 1}, &found) &&
                rows_in(found) == std::vector<uint32_t>(all.begin(), all.end()),
            "a set of rows", after.size);
    RowUnion together;
    Payload portable;
    const Buffer list = copied({9, 0, 1, 0, 7, 0, 0, 0});
    require(together.add_block(0, after.view()) && together.add_rows(list.view()), "blocks", 0);
    together.write(&portable);
    all.insert({65545, 7});
    require(read_roaring({portable.data(), portable.size()}, &found) &&
                rows_in(found) == std::vector<uint32_t>(all.begin(), all.end()),
            "rows put together", portable.size());
    after.data[1 + next_number() % (after.size - 1)] ^= 1 << next_number() % 8;
    read_roaring({after.data.get() + 1, after.size - 1}, &found);  // whatever it is, no crash
  }
}

void check_damage() {
  for (int round = 0; round < 1000; ++round) {
    const Buffer body(next_number() % 80);
    if (body.size > 4 && round % 2) {
      const uint8_t cookie[] = {0x3b, 0x30, static_cast<uint8_t>(next_number() % 4), 0};
      std::copy(cookie, cookie + 4, body.data.get());
    }
    std::vector<Interval> intervals;
    std::vector<Entry> entries;
    std::vector<Posting> postings;
    Rows rows;
    TextBlock texts;
    Payload joined;
    read_roaring(body.view(), &intervals);
    RowUnion together;
    together.add_block(round % 3 ? 0 : 8192, body.view());
    together.write(&joined);
    read_entries(body.view(), &entries);
    read_forward(body.view(), 1, 1, &postings);
    inline_rows(body.view(), &rows);
    extended_block(body.view(), 0, {5}, &joined);
    const Text given{body.view(), 7};
    if (read_texts(body.view(), &texts)) join_texts(texts, &given, 1, &joined);
  }
}

void check_entries() {
  for (int round = 0; round < 200; ++round) {
    std::set<std::pair<uint64_t, uint32_t>> sides[2], both;
    for (auto& side : sides)
      for (size_t i = next_number() % 40; i > 0; --i) {
        side.insert({next_number() % 50, static_cast<uint32_t>(next_number() % 3)});
        both.insert(side.begin(), side.end());
      }
    std::vector<Entry> old, given;
    for (const auto& one : sides[0]) old.push_back({one.first, one.second});
    for (const auto& one : sides[1]) given.push_back({one.first, one.second});
    Merged merged;
    merge_entries(old, given.data(), given.size(), &merged);
    Buffer block(merged.entries.size() * kEntryBytes);
    write_entries(merged.entries.data(), merged.entries.size(), block.data.get());
    std::vector<Entry> found;
    require(read_entries(block.view(), &found) && found.size() == both.size() &&
                merged.new_count == both.size() - old.size(),
            "merged entries", block.size);
    size_t at = 0;
    for (const auto& one : both)
      require(found[at++] == Entry{one.first, one.second}, "an entry", block.size);
  }
}

void check_texts() {
  std::set<std::string> all;
  Payload block;
  for (int round = 0; round < 60; ++round) {
    std::string text = "shared";
    for (size_t i = next_number() % 9; i > 0; --i)
      text += static_cast<char>('a' + next_number() % 3);
    const Buffer exact(text.size()), before = copied(block);
    std::copy(text.begin(), text.end(), exact.data.get());
    TextBlock parts;
    require(read_texts(before.view(), &parts), "a block of texts", before.size);
    const Text given{exact.view(), 1};
    require(join_texts(parts, &given, 1, &block), "a text that fits", block.size());
    all.insert(text);
    const Buffer after = copied(block);
    require(read_texts(after.view(), &parts) && parts.suffixes.size() == all.size(), "texts",
            after.size);
    size_t at = 0;
    for (const std::string& one : all) {
      const Bytes suffix = parts.suffixes[at++].text;
      require(std::equal(one.begin(), one.end(), suffix.data, suffix.data + suffix.size), "a text",
              one.size());
    }
  }
}

void check_digests() {
  // RFC 7693, appendix A: BLAKE2b-512 of "abc", its first bytes.
  const uint8_t expected[] = {0xba, 0x80, 0xa5, 0x3f, 0x98, 0x1c, 0x4d, 0x0d};
  const uint8_t abc[] = {'a', 'b', 'c'};
  uint8_t digest[64];
  Blake2b hash({nullptr, 0}, 64);
  hash.update({abc, 3});
  hash.finish(digest);
  require(std::equal(expected, expected + 8, digest), "a digest", 3);
  for (const size_t size : {0, 1, 127, 128, 129, 300}) {
    const Buffer key(32), text(size);
    Buffer whole(16), parts(16);
    Blake2b one(key.view(), 16), two(key.view(), 16);
    one.update(text.view());
    one.finish(whole.data.get());
    for (size_t at = 0; at < size; ++at) two.update({text.data.get() + at, 1});
    two.finish(parts.data.get());
    require(std::equal(whole.data.get(), whole.data.get() + 16, parts.data.get()), "a digest",
            size);
  }
}

void check_terms() {
  std::vector<Hash> hashes;
  for (int i = 0; i < 900; ++i) hashes.push_back({next_number() % 2, static_cast<uint32_t>(i % 2)});
  std::vector<Counted> counted;
  count_hashes(&hashes, &counted);
  require(counted.size() == 4, "distinct terms", counted.size());
  for (const Counted& one : counted) {
    uint8_t bytes[kHashBytes];
    write_hash(bytes, one.hash);
    require(read_hash(bytes) == one.hash && one.tf > 100, "a term", one.tf);
  }
}

}  // namespace

int main() {
  check_crc32c();
  check_seal();
  check_scores();
  check_row_sets();
  check_damage();
  check_entries();
  check_texts();
  check_terms();
  check_digests();
  std::printf("all agree\n");
  return 0;
}
