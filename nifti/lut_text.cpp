// The text forms of colour tables: tolerant readers and plain writers.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "nifti/lut.h"
#include "tensor/error.h"
#include "tensor/os.h"

namespace vg {
namespace {

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f'; };
  for (std::size_t at = 0; at < line.size();) {
    while (at < line.size() && blank(line[at])) ++at;
    std::size_t end = at;
    while (end < line.size() && !blank(line[end])) ++end;
    if (end > at) words.push_back(line.substr(at, end - at));
    at = end;
  }
  return words;
}

std::optional<std::int32_t> whole_number(std::string_view word) {
  std::int32_t v = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), v);
  if (error != std::errc{} || end != word.data() + word.size()) return std::nullopt;
  return v;
}
std::optional<std::uint8_t> colour_part(std::string_view word) {
  const auto v = whole_number(word);
  if (!v || *v < 0 || *v > 255) return std::nullopt;
  return static_cast<std::uint8_t>(*v);
}

// "id name R G B [A]"; the name may hold blanks.
std::optional<std::pair<std::int32_t, LutEntry>> parse_line(const std::vector<std::string_view>& words) {
  if (words.size() < 5) return std::nullopt;
  const auto id = whole_number(words[0]);
  if (!id) return std::nullopt;
  std::array<std::optional<std::uint8_t>, 4> tail;
  for (int n = 0; n < 4; ++n) tail[n] = colour_part(words[words.size() - 4 + n]);
  const bool with_alpha = words.size() >= 6 && whole_number(words[words.size() - 4]);
  if (with_alpha && !tail[0]) return std::nullopt;  // a number, but no colour
  if (!tail[1] || !tail[2] || !tail[3]) return std::nullopt;
  LutEntry e;
  const std::size_t name_end = words.size() - (with_alpha ? 4 : 3);
  for (std::size_t n = 1; n < name_end; ++n) e.name += (n > 1 ? " " : "") + std::string(words[n]);
  const int first = with_alpha ? 0 : 1;
  e.colour = {*tail[first], *tail[first + 1], *tail[first + 2]};
  e.transparency = with_alpha ? *tail[3] : 0;
  return std::pair{*id, std::move(e)};
}

std::uint8_t opaque_of(const LutEntry& e) { return static_cast<std::uint8_t>(255 - e.transparency); }

// 12 70 130 180 1 1 1 "Name": id, colour, opacity 0..1, seen, seen in 3-D, name.
std::optional<std::pair<std::int32_t, LutEntry>> parse_itk_snap_line(std::string_view line) {
  const std::size_t open = line.find('"'), close = line.rfind('"');
  if (open == std::string_view::npos || close == open) return std::nullopt;
  const auto words = words_of(line.substr(0, open));
  if (words.size() != 7) return std::nullopt;
  const auto id = whole_number(words[0]);
  const auto r = colour_part(words[1]), g = colour_part(words[2]), b = colour_part(words[3]);
  double opacity = 1;
  const auto [end, error] = std::from_chars(words[4].data(), words[4].data() + words[4].size(), opacity);
  if (!id || !r || !g || !b || error != std::errc{} || !(opacity >= 0 && opacity <= 1)) return std::nullopt;
  return std::pair{*id, LutEntry{std::string(line.substr(open + 1, close - open - 1)),
                                 {*r, *g, *b},
                                 static_cast<std::uint8_t>(std::lround(255 * (1 - opacity)))}};
}

// "#rrggbb"
std::optional<Colour> colour_from_hex(std::string_view s) {
  if (s.size() != 7 || s[0] != '#') return std::nullopt;
  Colour c;
  for (std::size_t n = 0; n < 3; ++n) {
    const char* at = s.data() + 1 + 2 * n;
    if (const auto [end, error] = std::from_chars(at, at + 2, c[n], 16); error != std::errc{} || end != at + 2) return std::nullopt;
  }
  return c;
}

std::vector<std::string_view> cells_of(std::string_view line) {
  std::vector<std::string_view> cells;
  for (std::size_t at = 0; at <= line.size();) {
    const std::size_t end = std::min(line.find('\t', at), line.size());
    std::string_view cell = line.substr(at, end - at);
    while (!cell.empty() && cell.front() == ' ') cell.remove_prefix(1);
    while (!cell.empty() && cell.back() == ' ') cell.remove_suffix(1);
    cells.push_back(cell);
    at = end + 1;
  }
  return cells;
}
// Which column is which in a BIDS table.
struct BidsColumns {
  std::size_t index = 0, name = 0, colour = std::string_view::npos;
};
std::optional<BidsColumns> bids_columns(std::string_view first_line) {
  const auto cells = cells_of(first_line);
  auto find = [&](std::string_view wanted) {
    const auto at = std::find(cells.begin(), cells.end(), wanted);
    return at == cells.end() ? std::string_view::npos : static_cast<std::size_t>(at - cells.begin());
  };
  const BidsColumns c{find("index"), find("name"), find("color")};
  if (c.index == std::string_view::npos || c.name == std::string_view::npos) return std::nullopt;
  return c;
}
std::optional<std::pair<std::int32_t, LutEntry>> parse_bids_line(std::string_view line, const BidsColumns& columns) {
  const auto cells = cells_of(line);
  if (cells.size() <= std::max(columns.index, columns.name)) return std::nullopt;
  const auto id = whole_number(cells[columns.index]);
  if (!id) return std::nullopt;
  LutEntry e{std::string(cells[columns.name]), Lut{}.colour(*id), 0};
  if (columns.colour < cells.size() && !cells[columns.colour].empty() && cells[columns.colour] != "n/a") {
    const auto colour = colour_from_hex(cells[columns.colour]);
    if (!colour) return std::nullopt;
    e.colour = *colour;
  }
  return std::pair{*id, std::move(e)};
}

// {"R": [..], "G": [..], "B": [..], "A": [..], "I": [..], "labels": [..]}; without I the ids are 0, 1, 2, ...
Lut parse_niivue(std::string_view text, const std::string& name) {
  constexpr std::size_t kMostBytes = std::size_t{2} << 20;  // thirty thousand labels; two bytes ("1,") take 40 in memory
  if (text.size() > kMostBytes) fail(ErrorCode::bad_file, "{}: {} bytes of JSON (wanted at most {})", name, text.size(), kMostBytes);
  using Event = nlohmann::json::parse_event_t;
  const auto flat = [](int depth, Event event, nlohmann::json&) {  // lists in the object, nothing deeper: what is there is left out
    return depth < 2 || (event != Event::array_start && event != Event::object_start);
  };
  const nlohmann::json j = nlohmann::json::parse(text, flat, false);
  if (!j.is_object()) fail(ErrorCode::bad_file, "{}: no JSON object (wanted niivue's lists R, G, B and labels)", name);
  const nlohmann::json empty = nlohmann::json::array();
  auto list = [&](const char* key, bool needed) -> const nlohmann::json& {
    if (!j.contains(key)) {
      if (needed) fail(ErrorCode::bad_file, "{}: without the list \"{}\" (wanted niivue's lists R, G, B and labels)", name, key);
      return empty;
    }
    if (!j[key].is_array()) fail(ErrorCode::bad_file, "{}: \"{}\" is a {} (wanted a list)", name, key, j[key].type_name());
    return j[key];
  };
  const nlohmann::json &red = list("R", true), &green = list("G", true), &blue = list("B", true), &alpha = list("A", false),
                       &ids = list("I", false), &labels = list("labels", true);
  const std::size_t count = red.size();
  auto check = [&](const char* key, const nlohmann::json& l, bool may_be_empty) {
    if (l.size() != count && !(may_be_empty && l.empty()))
      fail(ErrorCode::bad_file, "{}: \"{}\" has {} entries, \"R\" has {} (wanted the same)", name, key, l.size(), count);
  };
  check("G", green, false), check("B", blue, false), check("A", alpha, true), check("I", ids, true), check("labels", labels, false);
  auto number = [&](const char* key, const nlohmann::json& v, std::int64_t low, std::int64_t high) {
    if (!v.is_number_integer() || v.get<std::int64_t>() < low || v.get<std::int64_t>() > high)
      fail(ErrorCode::bad_file, "{}: \"{}\" holds {} (wanted whole numbers of {} .. {})", name, key, v.dump().substr(0, 40), low, high);
    return v.get<std::int64_t>();
  };
  Lut lut;
  for (std::size_t n = 0; n < count; ++n) {
    if (!labels[n].is_string()) fail(ErrorCode::bad_file, "{}: \"labels\" holds {} (wanted texts)", name, labels[n].dump().substr(0, 40));
    const auto id = static_cast<std::int32_t>(ids.empty() ? static_cast<std::int64_t>(n) : number("I", ids[n], INT32_MIN, INT32_MAX));
    auto part = [&](const char* key, const nlohmann::json& l) { return static_cast<std::uint8_t>(number(key, l[n], 0, 255)); };
    LutEntry e{labels[n].get<std::string>(), {part("R", red), part("G", green), part("B", blue)}, 0};
    if (!alpha.empty() && id != 0) e.transparency = static_cast<std::uint8_t>(255 - part("A", alpha));
    if (!lut.entries.insert_or_assign(id, std::move(e)).second)
      lut.warnings.push_back({"duplicate_id", fmt::format("{}: id {} again: the last entry counts", name, id)});
  }
  if (lut.entries.empty()) fail(ErrorCode::bad_file, "{}: no labels in it", name);
  return lut;
}

}  // namespace

LutForm lut_form(const std::string& path) {
  const std::size_t dot = path.find_last_of("./");
  const std::string ending = dot == std::string::npos || path[dot] == '/' ? "" : path.substr(dot);
  return ending == ".label"  ? LutForm::itk_snap
         : ending == ".tsv"  ? LutForm::bids
         : ending == ".json" ? LutForm::niivue
         : ending == ".ctbl" ? LutForm::slicer
                             : LutForm::freesurfer;
}

Lut parse_lut(std::string_view text, const std::string& name) {
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);  // a byte order mark of Windows' editors
  const std::size_t start = text.find_first_not_of(" \t\r\n");
  if (start != std::string_view::npos && text[start] == '{') return parse_niivue(text, name);
  const bool slicer = text.starts_with("# Color table file");
  Lut lut;
  std::size_t line_number = 0, skipped = 0;
  std::string first_skipped;
  std::optional<BidsColumns> bids;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    at = end + 1;
    ++line_number;
    while (!line.empty() && (line.back() == '\\' || line.back() == ' ' || line.back() == '\r' || line.back() == '\t'))
      line.remove_suffix(1);
    if (line_number == 1 && (bids = bids_columns(line))) continue;
    const auto words = words_of(line);
    if (words.empty() || words[0][0] == '#') continue;
    auto row = bids ? parse_bids_line(line, *bids) : parse_itk_snap_line(line);
    if (!row && !bids) row = parse_line(words);
    if (!row) {
      if (skipped++ == 0) first_skipped = fmt::format("line {}: \"{}\"", line_number, line.substr(0, 60));
      continue;
    }
    const std::int32_t id = row->first;
    if (slicer) row->second.transparency = id == 0 ? 0 : opaque_of(row->second);  // there the last number is opacity
    if (!lut.entries.insert_or_assign(id, std::move(row->second)).second)
      lut.warnings.push_back({"duplicate_id", fmt::format("{}: line {}: id {} again: the last line counts", name, line_number, id)});
  }
  if (lut.entries.empty())
    fail(ErrorCode::bad_file, "{}: no line has the form \"id name R G B A\"{}{}", name, skipped ? "; the first is " : "", first_skipped);
  if (skipped > 0)
    lut.warnings.push_back(
        {"bad_line", fmt::format("{}: {} lines without id, name and colour are skipped; the first is {}", name, skipped, first_skipped)});
  return lut;
}

Lut read_lut(const std::string& path) { return parse_lut(os::read_text(path, 64u << 20), path); }

namespace {

// Without control characters, tabulators and ends of lines among them, and without those that would end the field.
std::string without(std::string name, std::string_view characters) {
  for (char& c : name)
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f' || characters.find(c) != std::string_view::npos) c = '_';
  return name;
}
std::string one_word(const std::string& name) { return name.empty() ? "unnamed" : without(name, " "); }  // some readers split at blanks

std::string to_niivue(const Lut& lut) {
  nlohmann::ordered_json j = {{"R", nlohmann::json::array()}, {"G", nlohmann::json::array()}, {"B", nlohmann::json::array()},
                              {"A", nlohmann::json::array()}, {"I", nlohmann::json::array()}, {"labels", nlohmann::json::array()}};
  for (const auto& [id, e] : lut.entries) {
    j["R"].push_back(e.colour[0]), j["G"].push_back(e.colour[1]), j["B"].push_back(e.colour[2]);
    j["A"].push_back(id == 0 ? 0 : opaque_of(e));  // the background hides nothing
    j["I"].push_back(id), j["labels"].push_back(e.name);
  }
  return j.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace

std::string to_text(const Lut& lut, LutForm form) {
  if (form == LutForm::niivue) return to_niivue(lut);
  std::string text;
  switch (form) {
    case LutForm::freesurfer: text = "#No. Label Name:                            R   G   B   A\n"; break;
    case LutForm::itk_snap: text = "# ITK-SnAP Label Description File\n# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL\n"; break;
    case LutForm::slicer: text = fmt::format("# Color table file\n# {} values\n", lut.entries.size()); break;
    default: text = "index\tname\tcolor\n";
  }
  for (const auto& [id, e] : lut.entries) {
    const auto [r, g, b] = e.colour;
    const int seen = id == 0 ? 0 : 1;  // the background hides nothing
    switch (form) {
      case LutForm::freesurfer:
        text += fmt::format("{:<5} {:<40} {:<3} {:<3} {:<3} {}\n", id, one_word(e.name), r, g, b, e.transparency);
        break;
      case LutForm::itk_snap:
        text += fmt::format("{:5} {:5} {:4} {:4} {:8.4g} {:2} {:2}    \"{}\"\n", id, r, g, b, seen * opaque_of(e) / 255.0, seen, seen,
                            without(e.name, "\""));
        break;
      case LutForm::slicer: text += fmt::format("{} {} {} {} {} {}\n", id, one_word(e.name), r, g, b, seen * opaque_of(e)); break;
      default: text += fmt::format("{}\t{}\t#{:02x}{:02x}{:02x}\n", id, without(e.name.empty() ? "n/a" : e.name, ""), r, g, b);
    }
  }
  return text;
}

void write_lut(const std::string& path, const Lut& lut) { os::write_file_atomic(path, to_text(lut, lut_form(path))); }

}  // namespace vg
