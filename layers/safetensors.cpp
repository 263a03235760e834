// Safetensors, read as if every file were hostile: u64 length of the header, a JSON object {"name": {"dtype", "shape", "data_offsets"}, ...,
// "__metadata__": {text: text}}, then the bytes, each covered exactly once. Format: https://github.com/huggingface/safetensors (README);
// messages carry that library's words. Two things that it takes are refused here because its README forbids them: duplicate names, leading space.
#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <set>
#include <unordered_set>

#include "layers/json.h"
#include "layers/model_file.h"
#include "tensor/os.h"

namespace vg {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors bytes are little endian");

constexpr std::uint64_t kMaxHeader = 100'000'000;
constexpr int kMaxDepth = 128;

struct Entry {
  std::string name, dtype;
  std::vector<std::uint64_t> shape, offsets;  // offsets: [begin, end) behind the header
};
struct Header {
  std::vector<Entry> entries;  // by offset
  std::map<std::string, std::string> metadata;
  std::uint64_t data_at = 0;
};

// Element types of the format, and what becomes of them.
struct FileType {
  const char* name;
  int bits;
  bool readable;
  DType dtype;
};
constexpr FileType kFileTypes[] = {
    {"F32", 32, true, DType::f32},        {"F16", 16, true, DType::f16},        {"BF16", 16, true, DType::bf16},
    {"I32", 32, true, DType::i32},        {"U8", 8, true, DType::u8},           {"F64", 64, true, DType::f32},
    {"I64", 64, true, DType::i32},        {"BOOL", 8, false, DType::u8},        {"F4", 4, false, DType::u8},
    {"F6_E2M3", 6, false, DType::u8},     {"F6_E3M2", 6, false, DType::u8},     {"I8", 8, false, DType::u8},
    {"F8_E5M2", 8, false, DType::u8},     {"F8_E4M3", 8, false, DType::u8},     {"F8_E8M0", 8, false, DType::u8},
    {"F8_E4M3FNUZ", 8, false, DType::u8}, {"F8_E5M2FNUZ", 8, false, DType::u8}, {"I16", 16, false, DType::u8},
    {"U16", 16, false, DType::u8},        {"U32", 32, false, DType::u8},        {"C64", 64, false, DType::u8},
    {"U64", 64, false, DType::u8}};

const FileType* file_type(const std::string& name) {
  const auto found = std::find_if(std::begin(kFileTypes), std::end(kFileTypes), [&](const FileType& t) { return name == t.name; });
  return found == std::end(kFileTypes) ? nullptr : found;
}

std::string shortened(const std::string& text) { return text.size() > 80 ? text.substr(0, 77) + "..." : text; }

// Receives the header's JSON piece by piece. A document tree would hide duplicate names, and cost ten times the header's size.
class HeaderReader final : public nlohmann::json_sax<Json> {
 public:
  HeaderReader(Header& header, const std::string& where) : header_(header), where_(where) {}

  bool null() override { return scalar("null", nullptr, nullptr); }
  bool boolean(bool) override { return scalar("a boolean", nullptr, nullptr); }
  bool number_integer(number_integer_t) override { return scalar("a negative number", nullptr, nullptr); }
  bool number_unsigned(number_unsigned_t value) override { return scalar("a number", &value, nullptr); }
  bool number_float(number_float_t, const string_t&) override { return scalar("a floating point number", nullptr, nullptr); }
  bool string(string_t& text) override { return scalar("a text", nullptr, &text); }
  bool binary(binary_t&) override { return scalar("binary data", nullptr, nullptr); }

  bool start_object(std::size_t) override {
    deeper();
    switch (place_) {
      case Place::start: place_ = Place::top; break;
      case Place::top: place_ = key_ == "__metadata__" ? Place::metadata : Place::tensor; break;
      default: nested("an object");
    }
    return true;
  }
  bool end_object() override {
    --depth_;
    if (place_ == Place::ignored) return leave_ignored();
    if (place_ == Place::tensor) {
      for (const char* field : {"dtype", "shape", "data_offsets"})
        if (!fields_.count(field)) bad("tensor `{}`: missing field `{}`", shortened(header_.entries.back().name), field);
      if (header_.entries.back().offsets.size() != 2)
        bad("tensor `{}`: data_offsets wants two numbers", shortened(header_.entries.back().name));
    }
    place_ = Place::top;
    return true;
  }
  bool start_array(std::size_t) override {
    deeper();
    if (place_ == Place::tensor && key_ == "shape")
      place_ = Place::shape;
    else if (place_ == Place::tensor && key_ == "data_offsets")
      place_ = Place::offsets;
    else
      nested("a list");
    return true;
  }
  bool end_array() override {
    --depth_;
    if (place_ == Place::ignored) return leave_ignored();
    place_ = Place::tensor;
    return true;
  }
  bool key(string_t& name) override {
    if (place_ == Place::top) {
      if (!names_.insert(name).second) bad("the name `{}` is given twice", shortened(name));
      if (name != "__metadata__") header_.entries.push_back({.name = name, .dtype = {}, .shape = {}, .offsets = {}});
      fields_.clear();
    } else if (place_ == Place::tensor && !fields_.insert(name).second) {
      bad("tensor `{}`: duplicate field `{}`", shortened(header_.entries.back().name), shortened(name));
    } else if (place_ == Place::metadata && !header_.metadata.emplace(name, "").second) {
      bad("__metadata__: the key `{}` is given twice", shortened(name));
    }
    if (place_ != Place::ignored) key_ = std::move(name);
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& e) override {
    const std::string message = e.what();
    if (message.find("ill-formed UTF-8") != std::string::npos) fail(ErrorCode::bad_file, "{}: invalid UTF-8 in header", where_);
    const std::size_t bracket = message.find("] ");
    bad("{}", message.substr(bracket == std::string::npos ? 0 : bracket + 2, 200));
  }

 private:
  enum class Place { start, top, metadata, tensor, shape, offsets, ignored };

  template <class... A>
  [[noreturn]] void bad(fmt::format_string<A...> format, A&&... args) const {
    fail(ErrorCode::bad_file, "{}: invalid JSON in header: {}", where_, fmt::format(format, std::forward<A>(args)...));
  }
  void deeper() {
    if (++depth_ > kMaxDepth) bad("recursion limit exceeded (nested deeper than {})", kMaxDepth);
  }
  bool scalar(const char* what, const std::uint64_t* number, std::string* text) {
    switch (place_) {
      case Place::start: bad("wanted an object, found {}", what);
      case Place::top: bad("`{}`: wanted an object, found {}", shortened(key_), what);
      case Place::metadata:
        if (!text) bad("__metadata__: `{}` is {}, wanted a text", shortened(key_), what);
        header_.metadata[key_] = std::move(*text);
        break;
      case Place::tensor:
        if (key_ == "dtype" && text)
          header_.entries.back().dtype = std::move(*text);
        else if (key_ == "dtype" || key_ == "shape" || key_ == "data_offsets")
          bad("tensor `{}`: field `{}` is {}", shortened(header_.entries.back().name), key_, what);
        break;
      case Place::shape:
      case Place::offsets:
        if (!number) bad("tensor `{}`: {} holds {}, wanted whole numbers", shortened(header_.entries.back().name), key_, what);
        (place_ == Place::shape ? header_.entries.back().shape : header_.entries.back().offsets).push_back(*number);
        break;
      case Place::ignored: break;
    }
    return true;
  }
  // A list or object where a scalar is wanted, or below a field that nobody knows.
  void nested(const char* what) {
    if (place_ == Place::ignored) {
      ++ignored_depth_;
    } else if (place_ == Place::tensor && key_ != "dtype" && key_ != "shape" && key_ != "data_offsets") {
      place_ = Place::ignored, ignored_depth_ = 1;
    } else {
      scalar(what, nullptr, nullptr);
    }
  }
  bool leave_ignored() {
    if (--ignored_depth_ == 0) place_ = Place::tensor;
    return true;
  }

  Header& header_;
  const std::string& where_;
  Place place_ = Place::start;
  int depth_ = 0, ignored_depth_ = 0;
  std::string key_;
  std::unordered_set<std::string> names_;
  std::set<std::string> fields_;
};

// Sizes and offsets: the tensors must follow each other without gap or overlap and end where the file ends.
void check_layout(Header& h, std::uint64_t data_bytes, const std::string& where) {
  std::stable_sort(h.entries.begin(), h.entries.end(), [](const Entry& a, const Entry& b) { return a.offsets < b.offsets; });
  std::uint64_t at = 0;
  for (const Entry& e : h.entries) {
    const FileType* type = file_type(e.dtype);
    if (!type) fail(ErrorCode::bad_file, "{}: tensor `{}`: unknown dtype `{}`", where, shortened(e.name), shortened(e.dtype));
    if (e.offsets[0] != at || e.offsets[1] < at)
      fail(ErrorCode::bad_file, "{}: invalid offset for tensor `{}`: {} .. {} (wanted to begin at {})", where, shortened(e.name),
           e.offsets[0], e.offsets[1], at);
    std::uint64_t bits = static_cast<std::uint64_t>(type->bits);
    for (const std::uint64_t extent : e.shape)
      if (__builtin_mul_overflow(bits, extent, &bits) || extent > std::numeric_limits<std::int64_t>::max())
        fail(ErrorCode::bad_file, "{}: tensor `{}`: overflow computing buffer size from shape and/or element type", where,
             shortened(e.name));
    if (bits % 8 || bits / 8 != e.offsets[1] - e.offsets[0])
      fail(ErrorCode::bad_file, "{}: tensor `{}`: invalid shape, data type, or offset for tensor: {} bytes for {} bits", where,
           shortened(e.name), e.offsets[1] - e.offsets[0], bits);
    at = e.offsets[1];
  }
  if (at != data_bytes) fail(ErrorCode::bad_file, "{}: incomplete metadata, file not fully covered: {} bytes of {}", where, at, data_bytes);
}

// The first 8 bytes -> the length of the header.
std::uint64_t header_length(const std::byte* first8, std::uint64_t file_bytes, const std::string& where) {
  if (file_bytes < 8) fail(ErrorCode::bad_file, "{}: header too small: {} bytes (wanted at least 8)", where, file_bytes);
  std::uint64_t n;
  std::memcpy(&n, first8, 8);
  if (n > kMaxHeader)
    fail(ErrorCode::bad_file, "{}: header too large: {} bytes (wanted at most {}); not a safetensors file?", where, n, kMaxHeader);
  if (n > file_bytes - 8) fail(ErrorCode::bad_file, "{}: invalid header length: {} bytes in a file of {}", where, n, file_bytes);
  return n;
}

Header parse_header(std::string_view text, std::uint64_t file_bytes, const std::string& where) {
  if (!text.starts_with('{')) fail(ErrorCode::bad_file, "{}: invalid JSON in header: it must begin with an opening brace", where);
  // The library takes a NUL byte for the end of the text.
  if (text.find('\0') != std::string_view::npos) fail(ErrorCode::bad_file, "{}: invalid JSON in header: NUL byte", where);
  Header h;
  h.data_at = 8 + text.size();
  HeaderReader reader(h, where);
  Json::sax_parse(text.begin(), text.end(), &reader);
  check_layout(h, file_bytes - h.data_at, where);
  return h;
}

Shape shape_of(const Entry& e, const std::string& where) {
  if (e.shape.size() > kMaxRank)
    fail(ErrorCode::unsupported, "{}: tensor `{}`: rank {} (at most {})", where, shortened(e.name), e.shape.size(), kMaxRank);
  const auto x = [&](std::size_t i) { return static_cast<std::int64_t>(e.shape[i]); };
  switch (e.shape.size()) {
    case 0: return {};
    case 1: return {x(0)};
    case 2: return {x(0), x(1)};
    case 3: return {x(0), x(1), x(2)};
    case 4: return {x(0), x(1), x(2), x(3)};
    default: return {x(0), x(1), x(2), x(3), x(4)};
  }
}

// Bytes [offset, offset + count) of the data section into `to`.
using ReadBytes = std::function<void(std::uint64_t offset, void* to, std::size_t count)>;

// From -> To in pieces, so that a file of doubles does not need its size again.
template <class From, class To, class Convert>
void read_converted(const ReadBytes& read, std::uint64_t offset, To* to, std::int64_t count, Convert convert) {
  std::vector<From> piece(static_cast<std::size_t>(std::min<std::int64_t>(count, 1 << 16)));
  for (std::int64_t done = 0; done < count;) {
    const auto n = std::min<std::int64_t>(count - done, static_cast<std::int64_t>(piece.size()));
    read(offset + static_cast<std::uint64_t>(done) * sizeof(From), piece.data(), static_cast<std::size_t>(n) * sizeof(From));
    std::transform(piece.begin(), piece.begin() + n, to + done, convert);
    done += n;
  }
}

Safetensors load(Header h, const ReadBytes& read, const std::string& where) {
  Safetensors s;
  s.metadata = std::move(h.metadata);
  for (const Entry& e : h.entries) {
    const FileType& type = *file_type(e.dtype);
    if (!type.readable)
      fail(ErrorCode::unsupported, "{}: tensor `{}`: dtype {} is not read (F32, F16, BF16, F64, I32, I64 and U8 are)", where,
           shortened(e.name), e.dtype);
    Tensor t(shape_of(e, where), type.dtype, kCpu);
    if (e.dtype == "F64") {
      read_converted<double>(read, e.offsets[0], t.data<float>(), t.elements(), [](double v) { return static_cast<float>(v); });
    } else if (e.dtype == "I64") {
      read_converted<std::int64_t>(read, e.offsets[0], t.data<std::int32_t>(), t.elements(), [&](std::int64_t v) {
        if (v < std::numeric_limits<std::int32_t>::min() || v > std::numeric_limits<std::int32_t>::max())
          fail(ErrorCode::unsupported, "{}: tensor `{}`: the value {} needs more than 32 bits", where, shortened(e.name), v);
        return static_cast<std::int32_t>(v);
      });
    } else if (t.bytes()) {
      read(e.offsets[0], t.raw(), t.bytes());
    }
    s.tensors.emplace_back(e.name, std::move(t));
  }
  return s;
}

// Reads through `file` rather than a mapping: a file that shrinks under our hands is an error here, not a signal.
Header read_header(os::InputFile& file) {
  std::byte first[8] = {};
  if (file.read(first, std::min<std::uint64_t>(8, file.size())) != std::min<std::uint64_t>(8, file.size()))
    fail(ErrorCode::bad_file, "{}: the file became shorter while it was read", file.path());
  std::string text(header_length(first, file.size(), file.path()), '\0');
  if (file.read(text.data(), text.size()) != text.size())
    fail(ErrorCode::bad_file, "{}: the file became shorter while it was read", file.path());
  return parse_header(text, file.size(), file.path());
}

const char* file_name_of(DType t) {
  constexpr const char* names[] = {"F32", "BF16", "F16", "I32", "U8"};
  return names[static_cast<int>(t)];
}

std::string quoted(const std::string& text, const char* what) {
  try {
    return Json(text).dump();
  } catch (const Json::exception&) {
    fail(ErrorCode::invalid_argument, "safetensors: the {} \"{}\" is not UTF-8", what,
         Json(shortened(text)).dump(-1, ' ', true, Json::error_handler_t::replace));
  }
}

}  // namespace

const Tensor* Safetensors::find(const std::string& name) const {
  for (const auto& [n, t] : tensors)
    if (n == name) return &t;
  return nullptr;
}

Safetensors read_safetensors(const std::string& path) {
  os::InputFile file(path);
  Header h = read_header(file);
  const std::uint64_t data_at = h.data_at;
  std::uint64_t at = data_at;  // tensors lie in order, so seeking is rarely needed
  const ReadBytes read = [&](std::uint64_t offset, void* to, std::size_t count) {
    if (data_at + offset != at) file.seek(data_at + offset);
    if (file.read(to, count) != count) fail(ErrorCode::bad_file, "{}: the file became shorter while it was read", path);
    at = data_at + offset + count;
  };
  return load(std::move(h), read, path);
}

std::map<std::string, std::string> read_safetensors_metadata(const std::string& path) {
  os::InputFile file(path);
  return read_header(file).metadata;
}

Safetensors parse_safetensors(std::span<const std::byte> bytes, const std::string& where) {
  const std::uint64_t n = header_length(bytes.data(), bytes.size(), where);
  Header h = parse_header({reinterpret_cast<const char*>(bytes.data()) + 8, n}, bytes.size(), where);
  const std::byte* data = bytes.data() + h.data_at;
  return load(
      std::move(h), [&](std::uint64_t offset, void* to, std::size_t count) { std::memcpy(to, data + offset, count); }, where);
}

std::vector<std::size_t> safetensors_order(const std::vector<std::pair<std::string, Tensor>>& tensors) {
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return size_of(tensors[a].second.dtype()) > size_of(tensors[b].second.dtype()); });
  return order;
}

void write_safetensors(const std::string& path, const Safetensors& content) {
  std::string header = "{";
  if (!content.metadata.empty()) {
    header += "\"__metadata__\":{";
    for (const auto& [key, text] : content.metadata)
      header += fmt::format("{}{}:{}", header.back() == '{' ? "" : ",", quoted(key, "key"), quoted(text, "value"));
    header += "}";
  }
  std::uint64_t at = 0;
  std::set<std::string> names = {"__metadata__"};
  const std::vector<std::size_t> order = safetensors_order(content.tensors);
  for (const std::size_t i : order) {
    const auto& [name, t] = content.tensors[i];
    require(names.insert(name).second, "safetensors: two tensors are called \"{}\"", shortened(name));
    require(t.defined(), "safetensors: tensor \"{}\" is undefined", shortened(name));
    if (header.size() > 1) header += ",";
    header += fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[", quoted(name, "name"), file_name_of(t.dtype()));
    for (int a = 0; a < t.shape().rank(); ++a) header += fmt::format("{}{}", a ? "," : "", t.shape()[a]);
    header += fmt::format("],\"data_offsets\":[{},{}]}}", at, at + t.bytes());
    at += t.bytes();
  }
  header += "}";
  header.append((8 - header.size() % 8) % 8, ' ');
  require(header.size() <= kMaxHeader, "safetensors: the header would have {} bytes (at most {})", header.size(), kMaxHeader);

  os::AtomicFile file(path);
  const std::uint64_t n = header.size();
  file.write(&n, 8);
  file.write(header);
  for (const std::size_t i : order) {
    const Tensor& t = content.tensors[i].second;
    if (t.bytes() == 0) continue;
    const Tensor host = t.device().on_host() ? t : copy_to(t, kCpu);
    file.write(host.raw(), host.bytes());
  }
  file.commit();
}

}  // namespace vg
