// RFC 1951 by hand: LZ77 with two recent distances and one hash table, then one dynamic Huffman block for each piece of 256 KiB. A piece
// looks back into the piece before, and ends on a byte boundary by an empty stored block (what zlib calls a sync flush), so pieces can be made
// apart and simply follow each other.
#include "nifti/deflate.h"

#include <libdeflate.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstring>
#include <memory>

#include "tensor/parallel.h"

namespace vg {
namespace {

constexpr std::size_t kPiece = 256 << 10;
constexpr std::size_t kWindow = 32 << 10;
constexpr std::size_t kLookBack = 4096;  // of a piece's beginning into the piece before: rows and runs, and little to make twice
constexpr std::size_t kMaxMatch = 258, kMinMatch = 4;  // deflate knows matches of 3; they do not pay here
constexpr int kHashBits = 14;
constexpr int kMaxBits = 15;  // of a literal/length or distance code; 7 of the code for their lengths
constexpr std::size_t kLiterals = 286, kDistances = 30, kEndOfBlock = 256;

// ---- tables of the standard (section 3.2.5)

struct Symbol {
  std::uint16_t symbol = 0, base = 0;
  std::uint8_t extra = 0;  // bits behind the code: value - base
};
constexpr auto kLength = [] {  // by match length
  std::array<Symbol, kMaxMatch + 1> t{};
  std::uint16_t base = 3;
  for (std::uint16_t s = 0; s < 28; ++s) {
    const auto extra = static_cast<std::uint8_t>(s < 8 ? 0 : s / 4 - 1);
    for (unsigned n = 0; n < 1u << extra && base + n <= kMaxMatch; ++n) t[base + n] = {static_cast<std::uint16_t>(257 + s), base, extra};
    base = static_cast<std::uint16_t>(base + (1u << extra));
  }
  t[kMaxMatch] = {285, kMaxMatch, 0};
  return t;
}();
// Distance - 1: its two leading bits are the symbol, the others follow.
struct DistanceSymbol {
  unsigned symbol, extra, rest;
};
DistanceSymbol distance_symbol(unsigned before) {
  if (before < 4) return {before, 0, 0};
  const unsigned top = static_cast<unsigned>(std::bit_width(before)) - 1, half = before >> (top - 1) & 1;
  return {2 * top + half, top - 1, before & ((1u << (top - 1)) - 1)};
}

// ---- Huffman codes

struct Code {
  std::uint16_t bits = 0;  // first bit in bit 0
  std::uint8_t length = 0;
};

// Codes of at most `limit` bits, complete, for the symbols with a count; at least two symbols get one (old decoders want that).
template <std::size_t n>
std::array<Code, n> make_codes(std::array<std::uint32_t, n> counts, int limit) {
  std::array<std::uint16_t, n> order{};
  std::size_t used = 0;
  for (std::size_t s = 0; s < n; ++s)
    if (counts[s] > 0) order[used++] = static_cast<std::uint16_t>(s);
  for (std::size_t s = 0; used < 2; ++s)
    if (counts[s] == 0) counts[s] = 1, order[used++] = static_cast<std::uint16_t>(s);
  std::stable_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(used), [&](auto a, auto b) { return counts[a] < counts[b]; });

  // Two queues: leaves by count, inner nodes in the order of their making, which is by count as well.
  std::array<std::uint64_t, 2 * n> weight{};
  std::array<std::uint16_t, 2 * n> parent{};
  for (std::size_t s = 0; s < used; ++s) weight[s] = counts[order[s]];
  std::size_t leaf = 0, inner = used;
  for (std::size_t made = used; made < 2 * used - 1; ++made)
    for (int child = 0; child < 2; ++child) {
      const std::size_t take = leaf < used && (inner >= made || weight[leaf] <= weight[inner]) ? leaf++ : inner++;
      parent[take] = static_cast<std::uint16_t>(made);
      weight[made] += weight[take];
    }
  std::array<int, 2 * n> depth{};
  std::array<int, 2 * n + 1> of_length{};  // how many codes have which length
  for (std::size_t node = 2 * used - 1; node-- > 0;) {
    if (node < 2 * used - 2) depth[node] = depth[parent[node]] + 1;
    if (node < used) ++of_length[static_cast<std::size_t>(depth[node])];
  }
  // Lengths beyond the limit: cut, then lengthen shorter codes until Kraft's sum is 1 again.
  std::uint64_t sum = 0;
  const auto most = static_cast<std::size_t>(limit);
  for (std::size_t l = most + 1; l < of_length.size(); ++l) of_length[most] += of_length[l];
  for (std::size_t l = 1; l <= most; ++l) sum += static_cast<std::uint64_t>(of_length[l]) << (most - l);
  for (; sum > std::uint64_t{1} << most; --sum) {
    --of_length[most];
    std::size_t l = most - 1;
    while (of_length[l] == 0) --l;
    --of_length[l], of_length[l + 1] += 2;
  }
  std::array<Code, n> codes{};
  std::size_t s = 0;  // the rarest symbol takes the longest code
  for (std::size_t l = most; l >= 1; --l)
    for (int c = 0; c < of_length[l]; ++c) codes[order[s++]].length = static_cast<std::uint8_t>(l);
  // Canonical: by length, then by symbol.
  std::array<std::uint32_t, kMaxBits + 2> next{};
  for (std::size_t l = 1; l <= most; ++l) next[l + 1] = (next[l] + static_cast<std::uint32_t>(of_length[l])) << 1;
  for (Code& c : codes) {
    if (c.length == 0) continue;
    std::uint32_t v = next[c.length]++, reversed = 0;
    for (int b = 0; b < c.length; ++b, v >>= 1) reversed = reversed << 1 | (v & 1);
    c.bits = static_cast<std::uint16_t>(reversed);
  }
  return codes;
}

class Bits {
 public:
  explicit Bits(std::byte* to) : at_(to) {}
  // At most 56 bits between two calls of flush().
  void put(std::uint64_t value, unsigned count) { held_ |= value << count_, count_ += count; }
  void put(Code c) { put(c.bits, c.length); }
  void flush() {
    std::memcpy(at_, &held_, 8);
    at_ += count_ / 8;
    held_ >>= count_ & ~7u, count_ &= 7;
  }
  // Up to the next byte boundary by zeros.
  std::byte* align() {
    count_ = (count_ + 7) & ~7u;
    flush();
    return at_;
  }
  void move_to(std::byte* at) { at_ = at; }

 private:
  std::byte* at_;
  std::uint64_t held_ = 0;
  unsigned count_ = 0;
};

// ---- LZ77

struct Sequence {  // literals, then a match (length 0: none, at the end of the piece)
  std::uint32_t literals;
  std::uint16_t length, before;  // distance - 1
};

template <class T>
T load(const std::byte* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// How many bytes at a and b are equal, b before `end`.
std::size_t equal_bytes(const std::byte* a, const std::byte* b, const std::byte* end) {
  const std::byte* start = b;
  while (end - b >= 8) {
    if (const std::uint64_t differ = load<std::uint64_t>(a) ^ load<std::uint64_t>(b))
      return static_cast<std::size_t>(b - start) + static_cast<std::size_t>(std::countr_zero(differ)) / 8;
    a += 8, b += 8;
  }
  while (b < end && *a == *b) ++a, ++b;
  return static_cast<std::size_t>(b - start);
}

struct Worker {
  std::array<std::uint32_t, 1 << kHashBits> table;  // place in window + piece, plus 1; 0: none
  std::vector<Sequence> sequences;
  std::array<std::uint32_t, kLiterals> literals;
  std::array<std::uint32_t, kDistances> distances;
  Buffer made;  // where a ByteSource puts its bytes

  static std::size_t hash(std::uint32_t v) { return v * 2654435761u >> (32 - kHashBits); }

  void close(const std::byte* from, std::size_t count, std::size_t length, std::size_t distance) {
    for (std::size_t n = 0; n < count; ++n) ++literals[static_cast<std::uint8_t>(from[n])];
    auto put = [&](std::size_t run, std::size_t part) {
      sequences.push_back({static_cast<std::uint32_t>(run), static_cast<std::uint16_t>(part), static_cast<std::uint16_t>(distance - 1)});
      if (part == 0) return;
      ++literals[kLength[part].symbol];
      ++distances[distance_symbol(static_cast<unsigned>(distance - 1)).symbol];
    };
    if (length == 0) return put(count, 0);
    for (std::size_t run = count; length > 0; run = 0) {  // no part may be shorter than 3
      const std::size_t part = length <= kMaxMatch ? length : length < kMaxMatch + 3 ? length - 3 : kMaxMatch;
      put(run, part);
      length -= part;
    }
  }

  // `start`: the first byte that matches may reach back to.
  void parse(const std::byte* start, const std::byte* piece, const std::byte* end) {
    table.fill(0);
    sequences.clear();
    literals.fill(0), distances.fill(0);
    auto place = [&](const std::byte* p) { return static_cast<std::uint32_t>(p - start) + 1; };
    for (const std::byte* p = start; p < piece; p += 2) table[hash(load<std::uint32_t>(p))] = place(p);
    std::size_t recent[2] = {1, 1};
    const std::byte *p = piece, *run = piece;
    const std::byte* last = end - 12;  // loads of 4 bytes stay inside
    while (p < last) {
      const std::uint32_t v = load<std::uint32_t>(p);
      std::uint32_t& slot = table[hash(v)];
      const std::byte* hashed = slot ? start + (slot - 1) : nullptr;
      slot = place(p);
      std::size_t best = 0, distance = 0;
      auto offer = [&](std::size_t d) {
        if (const std::size_t n = equal_bytes(p - d, p, end); n > best) best = n, distance = d;
      };
      for (const std::size_t d : recent)  // both at most kWindow: they came from the table
        if (d <= static_cast<std::size_t>(p - start) && load<std::uint32_t>(p - d) == v) offer(d);
      if (hashed && best < 32 && p - hashed <= static_cast<std::ptrdiff_t>(kWindow) && load<std::uint32_t>(hashed) == v)
        offer(static_cast<std::size_t>(p - hashed));
      if (best < kMinMatch) {
        p += 1 + (p - run) / 64;  // noise: look less often
        continue;
      }
      close(run, static_cast<std::size_t>(p - run), best, distance);
      if (distance != recent[0]) recent[1] = recent[0], recent[0] = distance;
      p += best;
      run = p;
      if (p < last) table[hash(load<std::uint32_t>(p - 2))] = place(p - 2);
    }
    ++literals[kEndOfBlock];
    close(run, static_cast<std::size_t>(end - run), 0, 1);
  }
};

// ---- one piece

// The lengths of both codes as the standard packs them: symbols 0..15 lengths, 16 repeat, 17 and 18 zeros.
struct PackedLengths {
  struct Item {
    std::uint8_t symbol, rest;
  };
  std::vector<Item> items;
  std::array<std::uint32_t, 19> counts{};

  void add(std::uint8_t symbol, std::size_t rest = 0) { items.push_back({symbol, static_cast<std::uint8_t>(rest)}), ++counts[symbol]; }
  explicit PackedLengths(const std::vector<std::uint8_t>& lengths) {
    for (std::size_t at = 0; at < lengths.size();) {
      std::size_t same = 1;
      while (at + same < lengths.size() && lengths[at + same] == lengths[at]) ++same;
      const std::uint8_t value = lengths[at];
      at += same;
      if (value == 0) {
        for (; same >= 11; same -= std::min<std::size_t>(same, 138)) add(18, std::min<std::size_t>(same, 138) - 11);
        if (same >= 3) add(17, same - 3), same = 0;
      } else {
        add(value), --same;
        for (; same >= 3; same -= std::min<std::size_t>(same, 6)) add(16, std::min<std::size_t>(same, 6) - 3);
      }
      for (; same > 0; --same) add(value);
    }
  }
};
constexpr std::uint8_t kLengthOrder[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
constexpr unsigned rest_bits(std::uint8_t symbol) { return symbol == 16 ? 2 : symbol == 17 ? 3 : symbol == 18 ? 7 : 0; }

std::byte* put_stored(std::byte* to, const std::byte* from, std::size_t bytes, bool final) {
  constexpr std::size_t kMost = 65535;
  do {
    const std::size_t part = std::min(bytes, kMost);
    bytes -= part;
    *to++ = static_cast<std::byte>(final && bytes == 0);
    const auto length = static_cast<std::uint16_t>(part), inverse = static_cast<std::uint16_t>(~length);
    std::memcpy(to, &length, 2), std::memcpy(to + 2, &inverse, 2);
    if (part > 0) std::memcpy(to + 4, from, part);
    to += 4 + part, from += part;
  } while (bytes > 0);
  return to;
}
constexpr std::size_t kSlot = kPiece + 5 * (kPiece / 65535 + 1) + 64;  // room for a piece: at worst stored

// Returns the end of what was written.
std::byte* pack(Worker& w, const std::byte* start, const std::byte* piece, const std::byte* end, bool final, std::byte* to) {
  const auto bytes = static_cast<std::size_t>(end - piece);
  if (bytes < 64) return put_stored(to, piece, bytes, final);
  w.parse(start, piece, end);
  const auto literal = make_codes(w.literals, kMaxBits);
  const auto distance = make_codes(w.distances, kMaxBits);
  std::size_t literals = kLiterals, distances = kDistances;
  while (literal[literals - 1].length == 0) --literals;
  while (distance[distances - 1].length == 0) --distances;
  std::vector<std::uint8_t> lengths;
  for (std::size_t s = 0; s < literals; ++s) lengths.push_back(literal[s].length);
  for (std::size_t s = 0; s < distances; ++s) lengths.push_back(distance[s].length);
  const PackedLengths packed(lengths);
  const auto code = make_codes(packed.counts, 7);
  std::size_t codes = 19;
  while (codes > 4 && code[kLengthOrder[codes - 1]].length == 0) --codes;

  std::uint64_t size = 17 + 3 * codes + 8 * 8;  // bits
  for (const auto& i : packed.items) size += code[i.symbol].length + rest_bits(i.symbol);
  for (std::size_t s = 0; s < literals; ++s) size += std::uint64_t{w.literals[s]} * literal[s].length;
  for (std::size_t s = 0; s < distances; ++s) size += std::uint64_t{w.distances[s]} * (distance[s].length + (s < 4 ? 0 : s / 2 - 1));
  for (std::size_t n = 3; n <= kMaxMatch; n += 1u << kLength[n].extra)
    size += std::uint64_t{kLength[n].extra} * w.literals[kLength[n].symbol];
  if (size / 8 >= bytes) return put_stored(to, piece, bytes, final);

  Bits out(to);
  out.put(final, 1), out.put(2, 2);
  out.put(literals - 257, 5), out.put(distances - 1, 5), out.put(codes - 4, 4);
  out.flush();
  for (std::size_t n = 0; n < codes; ++n) out.put(code[kLengthOrder[n]].length, 3), out.flush();
  for (const auto& i : packed.items) out.put(code[i.symbol]), out.put(i.rest, rest_bits(i.symbol)), out.flush();
  const std::byte* at = piece;
  for (const Sequence& s : w.sequences) {
    std::uint32_t n = s.literals;
    for (; n >= 3; n -= 3, at += 3) {
      for (int k = 0; k < 3; ++k) out.put(literal[static_cast<std::uint8_t>(at[k])]);
      out.flush();
    }
    for (; n > 0; --n) out.put(literal[static_cast<std::uint8_t>(*at++)]);
    out.flush();
    if (s.length == 0) continue;
    const Symbol& l = kLength[s.length];
    const DistanceSymbol d = distance_symbol(s.before);
    out.put(literal[l.symbol]), out.put(s.length - l.base, l.extra);
    out.put(distance[d.symbol]), out.put(d.rest, d.extra);
    out.flush();
    at += s.length;
  }
  out.put(literal[kEndOfBlock]);
  out.flush();
  if (final) return out.align();
  out.put(0, 3);  // an empty stored block: on to the byte boundary
  std::byte* aligned = out.align();
  const std::uint32_t empty = 0xffff0000;
  std::memcpy(aligned, &empty, 4);
  return aligned + 4;
}

// give(worker, start, end): where the plain bytes from `start` to `end` are, nullptr to stop.
template <class Give>
Deflated deflate_with(std::size_t bytes, Give give) {
  const std::size_t pieces = std::max<std::size_t>((bytes + kPiece - 1) / kPiece, 1);
  Deflated out;
  out.storage = Buffer(pieces * kSlot);  // touched only where pieces are written
  out.pieces.resize(pieces);
  std::vector<std::uint32_t> crcs(pieces);
  std::vector<std::unique_ptr<Worker>> workers(static_cast<std::size_t>(threads()));
  std::atomic<bool> stopped{false};
  parallel_for_worker(static_cast<std::int64_t>(pieces), 1, [&](int worker, std::int64_t first, std::int64_t) {
    if (stopped) return;
    auto& w = workers[static_cast<std::size_t>(worker)];
    if (!w) w = std::make_unique<Worker>();
    const auto n = static_cast<std::size_t>(first);
    const std::size_t begin = n * kPiece, end = std::min(bytes, begin + kPiece), start = begin - std::min(begin, kLookBack);
    const std::byte* plain = give(*w, start, end);
    if (!plain) {
      stopped = true;
      return;
    }
    std::byte* to = out.storage.data() + n * kSlot;
    out.pieces[n] = {to, pack(*w, plain, plain + (begin - start), plain + (end - start), n + 1 == pieces, to)};
    crcs[n] = libdeflate_crc32(0, plain + (begin - start), end - begin);
  });
  if (stopped) {
    out.complete = false;
    return out;
  }
  out.crc = crcs[0];
  const std::size_t last = bytes - (pieces - 1) * kPiece;
  for (std::size_t n = 1; n < pieces; ++n)
    out.crc = static_cast<std::uint32_t>(crc32_combine(out.crc, crcs[n], static_cast<z_off_t>(n + 1 == pieces ? last : kPiece)));
  return out;
}

}  // namespace

Deflated deflate_fast(std::span<const std::byte> plain) {
  static constexpr std::byte kNothing{};
  const std::byte* data = plain.empty() ? &kNothing : plain.data();
  return deflate_with(plain.size(), [&](Worker&, std::size_t start, std::size_t) { return data + start; });
}

Deflated deflate_fast(std::size_t bytes, const ByteSource& source) {
  return deflate_with(bytes, [&](Worker& w, std::size_t start, std::size_t end) -> const std::byte* {
    if (w.made.size() == 0) w.made = Buffer(kLookBack + kPiece);
    return source(start, end, w.made.data()) ? w.made.data() : nullptr;
  });
}

}  // namespace vg
