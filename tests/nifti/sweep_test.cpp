// Every byte of a header with every value, and every field with hostile values, in both byte orders, plain, gzip and as a pair: verdicts
// are nibabel's (sweep_golden.inc) but for three rules, which are counted.
#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>

#include "nifti/image.h"
#include "tensor/error.h"
#include "tests/nifti/fixture.h"

namespace vg {
namespace {

using test::Bytes;

struct Refused {
  int byte, first, last;
};
struct Field {
  std::size_t at;
  bool swaps;  // bytes turn round in the big-endian file
  const char* hex;
  const char* verdicts;
};
#include "tests/nifti/sweep_golden.inc"

// "" when the file is accepted.
template <class Read>
std::string refusal_of(Read read) {
  try {
    const Image image = read();
    EXPECT_LE(image.bytes(), 1u << 20);
    return "";
  } catch (const Error& e) {
    EXPECT_TRUE(e.code() == ErrorCode::bad_file || e.code() == ErrorCode::unsupported) << e.what();
    return e.what();
  }
}
std::string refusal_of(const Bytes& b, const char* name) {
  return refusal_of([&] { return parse_image(std::span<const std::byte>(b), name); });
}

// The three rules that are ours: an image needs voxels (nibabel: an empty array), a place in the patient that can be inverted (nibabel:
// whatever the sform holds), and 1 to 7 axes (nibabel takes any number in a swapped header). nullptr: not a difference that is meant.
const char* rule_of(const std::string& refusal) {
  if (refusal.find("no usable transform: sform") != std::string::npos) return "transform";
  if (refusal.find("= 0 (wanted at least 1)") != std::string::npos) return "no voxels";
  if (refusal.find("axes (wanted 1..7)") != std::string::npos) return "axes";
  return nullptr;
}

TEST(Sweep, EveryByteWithEveryValue) {
  const Bytes base = test::RawNifti().bytes();
  std::map<std::string, int> ours;
  int refused = 0;
  for (std::size_t at = 0; at < 352; ++at)
    for (int value = 0; value < 256; ++value) {
      Bytes b = base;
      b[at] = static_cast<std::byte>(value);
      const bool theirs = std::any_of(std::begin(kRefused), std::end(kRefused), [&](const Refused& r) {
        return r.byte == static_cast<int>(at) && r.first <= value && value <= r.last;
      });
      const std::string refusal = refusal_of(b, "x.nii");
      refused += !refusal.empty();
      if (theirs == !refusal.empty()) continue;
      const char* rule = refusal.empty() ? nullptr : rule_of(refusal);
      EXPECT_NE(rule, nullptr) << "byte " << at << " = " << value << ": " << (refusal.empty() ? "accepted" : refusal);
      if (rule) ++ours[rule];
    }
  EXPECT_GT(refused, 4000);
  EXPECT_EQ(ours, (std::map<std::string, int>{{"axes", 1}, {"no voxels", 3}, {"transform", 608}}));
}

TEST(Sweep, EveryFieldWithHostileValues) {
  std::map<std::string, int> ours;
  int files = 0;
  test::TemporaryFolder folder;
  for (const Field& f : kFields)
    for (const bool big : {false, true}) {
      SCOPED_TRACE(std::to_string(f.at) + " " + f.hex + (big ? " big endian" : ""));
      Bytes b = test::RawNifti(big).bytes();
      const std::size_t size = std::strlen(f.hex) / 2;
      for (std::size_t n = 0; n < size; ++n)
        b[f.at + (big && f.swaps ? size - 1 - n : n)] = static_cast<std::byte>(std::stoi(std::string(f.hex + 2 * n, 2), nullptr, 16));
      const std::string plain = refusal_of(b, "x.nii"), packed = refusal_of(test::gz(b, 1), "x.nii.gz");
      EXPECT_EQ(plain.empty(), packed.empty()) << plain << " | " << packed;
      files += 2;
      if (plain.empty() != (f.verdicts[big] == 'A')) {
        const char* rule = plain.empty() ? nullptr : rule_of(plain);
        EXPECT_NE(rule, nullptr) << (plain.empty() ? "accepted" : plain);
        if (rule) ++ours[rule];
      }
      constexpr std::size_t kOffset = 108, kMagic = 344;
      if (f.at == kOffset || f.at == kMagic) continue;  // they mean something else in a pair
      Bytes header(b.begin(), b.begin() + 348);
      std::memcpy(header.data() + kMagic, "ni1", 4);
      for (auto [name, bytes] : {std::pair{"p.hdr", &header}, {"p.img", &b}})
        std::ofstream(folder / name, std::ios::binary)
            .write(reinterpret_cast<const char*>(bytes->data()), static_cast<std::streamsize>(bytes->size()));
      const std::string pair = refusal_of([&] { return read_image(folder / "p.hdr"); });
      EXPECT_EQ(plain.empty(), pair.empty()) << plain << " | " << pair;
      ++files;
    }
  EXPECT_EQ(ours, (std::map<std::string, int>{{"axes", 11}, {"no voxels", 6}, {"transform", 108}}));
  EXPECT_GT(files, 3000);
}

}  // namespace
}  // namespace vg
