// Colour tables: FreeSurfer's text form with the dirt it has in the wild, side pairs, colours of unknown ids, and the built-in table.
#include "nifti/lut.h"

#include <algorithm>
#include <set>

#include <gtest/gtest.h>

#include "tensor/error.h"
#include "tensor/os.h"
#include "tests/nifti/fixture.h"

namespace vg {
namespace {

TEST(Lut, ReadsFreeSurfersFormAndItsDirt) {
  const Lut lut = parse_lut(
      "#No. Label Name:   R G B A\n\n"
      "17  Left-Hippocampus    220 216 20  0\n"
      "  2 Left-Cerebral-White-Matter 245 245 245 0 \\\\  \r\n"
      "41\tRight-Cerebral-White-Matter\t245\t245\t245\t0\\\n"
      "53 Right-Hippocampus 220 216 20\n"
      "21 Line 1 60 58 210 0\n"
      "17 Left-Hippocampus-again 1 2 3 4\n"
      "this is no entry\n"
      "5 Too-Bright 300 0 0 0",
      "x.txt");
  EXPECT_EQ(lut.entries.size(), 5u);
  EXPECT_EQ(lut.name(17), "Left-Hippocampus-again");
  EXPECT_EQ(lut.colour(17), (Colour{1, 2, 3}));
  EXPECT_EQ(lut.entries.at(17).transparency, 4);
  EXPECT_EQ(lut.name(2), "Left-Cerebral-White-Matter");
  EXPECT_EQ(lut.colour(53), (Colour{220, 216, 20}));
  EXPECT_EQ(lut.name(21), "Line 1");
  EXPECT_TRUE(has_warning(lut.warnings, "duplicate_id"));
  EXPECT_TRUE(has_warning(lut.warnings, "bad_line"));
  EXPECT_EQ(lut.pairs(), (std::vector<std::pair<std::int32_t, std::int32_t>>{{2, 41}})) << "the renamed one has no partner";
}

TEST(Lut, TextWithoutIdsIsRefused) {
  for (const char* text :
       {"", "# nothing\n", "Unknown 0 0 0\nLeft-Putamen 236 13 176\n", "Unknown\nLeft-Putamen\n", "0 1 2\n", "\\\n\\\n"}) {
    try {
      parse_lut(text, "names.txt");
      ADD_FAILURE() << "accepted: " << text;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("names.txt"), std::string::npos);
      EXPECT_EQ(e.code(), ErrorCode::bad_file);
    }
  }
}

TEST(Lut, SidesByName) {
  const std::pair<const char*, const char*> sides[] = {{"Left-Putamen", "Right-Putamen"},         {"ctx-lh-cuneus", "ctx-rh-cuneus"},
                                                       {"wm-lh-insula", "wm-rh-insula"},          {"ctx_lh_G_cuneus", "ctx_rh_G_cuneus"},
                                                       {"Left_future_WMSA", "Right_future_WMSA"}, {"Cbm_Left_I_IV", "Cbm_Right_I_IV"},
                                                       {"CbmWM_Gyri_Left", "CbmWM_Gyri_Right"},   {"left_CA1", "right_CA1"},
                                                       {"Hippocampus_L", "Hippocampus_R"}};
  for (auto [left, right] : sides) {
    EXPECT_EQ(mirrored_name(left), right);
    EXPECT_EQ(mirrored_name(right), left);
  }
  for (const char* none : {"Brain-Stem", "Leftover", "CSF", "WM-hypointensities", "L", "S_L_x", "bright", ""})
    EXPECT_EQ(mirrored_name(none), "") << none;
}

TEST(Lut, BuiltInTableMatchesThePublishedOne) {
  const Lut ours = builtin_freesurfer();
  EXPECT_GE(ours.entries.size(), 50u);
  for (auto [left, right] : {std::pair{2, 41},
                             {3, 42},
                             {4, 43},
                             {5, 44},
                             {7, 46},
                             {8, 47},
                             {10, 49},
                             {11, 50},
                             {12, 51},
                             {13, 52},
                             {17, 53},
                             {18, 54},
                             {26, 58},
                             {28, 60},
                             {30, 62},
                             {31, 63}}) {
    const auto pairs = ours.pairs();
    EXPECT_TRUE(std::find(pairs.begin(), pairs.end(), std::pair<std::int32_t, std::int32_t>{left, right}) != pairs.end()) << left;
  }
  VG_NEED_DATA(data);
  const Lut theirs = read_lut(data + "/ixi-slices/lut/FreeSurferColorLUT.txt");
  for (const auto& [id, e] : ours.entries) {
    ASSERT_TRUE(theirs.contains(id)) << id;
    EXPECT_EQ(e.colour, theirs.colour(id)) << id << " " << e.name;
    if (id == 10 || id == 49) continue;  // "Thalamus-Proper*" in old tables, "Thalamus" in new ones
    EXPECT_EQ(e.name, theirs.name(id)) << id;
  }
}

TEST(Lut, RealTableAndItsCopies) {
  VG_NEED_DATA(data);
  const std::string folder = data + "/ixi-slices/lut/";
  const Lut clean = read_lut(folder + "FreeSurferColorLUT.txt");
  EXPECT_EQ(clean.entries.size(), 926u);
  EXPECT_TRUE(clean.warnings.empty());
  EXPECT_GE(clean.pairs().size(), 300u);
  const Lut rtf = read_lut(folder + "as-found/code-kopi.txt");
  for (const auto& [id, e] : clean.entries) {
    ASSERT_TRUE(rtf.contains(id)) << id;
    EXPECT_EQ(rtf.name(id), e.name);
    EXPECT_EQ(rtf.colour(id), e.colour);
  }
  EXPECT_NO_THROW(read_lut(folder + "as-found/code-kopi_kuttet.txt"));
  for (const char* no_ids : {"as-found/code.txt", "as-found/bareNavn.txt"}) EXPECT_THROW(read_lut(folder + no_ids), Error) << no_ids;
}

TEST(Lut, WritesWhatItReads) {
  test::TemporaryFolder folder;
  Lut lut = builtin_freesurfer();
  lut.entries[5000] = {"two words", {1, 2, 3}, 7};
  write_lut(folder / "l.txt", lut);
  const Lut back = read_lut(folder / "l.txt");
  EXPECT_TRUE(back.warnings.empty());
  ASSERT_EQ(back.entries.size(), lut.entries.size());
  for (const auto& [id, e] : lut.entries) {
    EXPECT_EQ(back.name(id), id == 5000 ? "two_words" : e.name);
    EXPECT_EQ(back.colour(id), e.colour);
    EXPECT_EQ(back.entries.at(id).transparency, e.transparency);
  }
}

TEST(Lut, UnknownIdsHaveStableDistinctColours) {
  const Lut none;
  EXPECT_EQ(none.name(137), "label-137");
  EXPECT_EQ(none.colour(0), (Colour{0, 0, 0}));
  std::set<Colour> colours;
  for (std::int32_t id = 1; id <= 60; ++id) {
    const Colour c = none.colour(id);
    EXPECT_EQ(c, Lut{}.colour(id));
    EXPECT_GT(std::max({c[0], c[1], c[2]}), 150) << "visible on black";
    colours.insert(c);
  }
  EXPECT_EQ(colours.size(), 60u);
  EXPECT_NO_THROW(none.colour(-5));
  EXPECT_EQ(builtin_freesurfer().find("Left-Amygdala"), 18);
  EXPECT_EQ(builtin_freesurfer().find("left-amygdala"), -1);
}

// ---- the forms of other programs

TEST(LutForms, ReadsItkSnap) {
  const Lut lut = parse_lut(
      "################################################\n# ITK-SnAP Label Description File\n# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL\n"
      "################################################\n"
      "    0     0    0    0        0  0  0    \"Clear Label\"\n"
      "   17   220  216   20        1  1  1    \"Left Hippocampus\"\r\n"
      "   53   220  216   20      0.5  1  0    \"Right \"odd\" name\"\n"
      "   54   300  216   20        1  1  1    \"too bright\"\n",
      "x.label");
  EXPECT_EQ(lut.entries.size(), 3u);
  EXPECT_EQ(lut.name(17), "Left Hippocampus");
  EXPECT_EQ(lut.colour(17), (Colour{220, 216, 20}));
  EXPECT_EQ(lut.entries.at(17).transparency, 0);
  EXPECT_EQ(lut.entries.at(53).transparency, 128);
  EXPECT_EQ(lut.name(53), "Right \"odd\" name");
  EXPECT_EQ(lut.name(0), "Clear Label");
  EXPECT_TRUE(has_warning(lut.warnings, "bad_line"));
}

TEST(LutForms, ReadsBidsTables) {
  const Lut lut = parse_lut(
      "\xef\xbb\xbfindex\tname\tabbreviation\tcolor\tmapping\n0\tBackground\tBG\t#000000\t0\n17\tLeft Hippocampus\tLH\t#DCd814\t2\r\n"
      "18\tno colour\tx\tn/a\t1\n19\tshort\nx\ty\tz\t#000000\t1\n20\tbad colour\tb\tred\t1\n",
      "x_dseg.tsv");
  EXPECT_EQ(lut.entries.size(), 4u);
  EXPECT_EQ(lut.colour(17), (Colour{220, 216, 20}));
  EXPECT_EQ(lut.name(17), "Left Hippocampus");
  EXPECT_EQ(lut.colour(18), Lut{}.colour(18)) << "one of its own";
  EXPECT_TRUE(has_warning(lut.warnings, "bad_line"));
  EXPECT_EQ(parse_lut("name\tindex\nLeft-Putamen\t12\n", "x.tsv").name(12), "Left-Putamen") << "columns in any order";
  EXPECT_THROW(parse_lut("index\tname\n", "x.tsv"), Error);
}

TEST(LutForms, ReadsNiivue) {
  const Lut lut =
      parse_lut(R"({"R":[0,220],"G":[0,216],"B":[0,20],"A":[0,155],"I":[0,17],"labels":["Unknown","Left-Hippocampus"]})", "x.json");
  EXPECT_EQ(lut.entries.size(), 2u);
  EXPECT_EQ(lut.colour(17), (Colour{220, 216, 20}));
  EXPECT_EQ(lut.entries.at(17).transparency, 100);
  EXPECT_EQ(parse_lut(R"( {"R":[1,2],"G":[1,2],"B":[1,2],"labels":["a","b"]})", "x.json").name(1), "b") << "ids by place";
  for (const char* bad :
       {"{", "{}", R"({"R":[1],"G":[1],"B":[1]})", R"({"R":[1],"G":[1,2],"B":[1],"labels":["a"]})",
        R"({"R":[256],"G":[1],"B":[1],"labels":["a"]})", R"({"R":[1],"G":[1],"B":[1],"labels":[7]})",
        R"({"R":1,"G":[1],"B":[1],"labels":["a"]})", R"({"R":[],"G":[],"B":[],"labels":[]})",
        R"({"R":[1],"G":[1],"B":[1],"I":[9999999999],"labels":["a"]})", R"({"R":[1.5],"G":[1],"B":[1],"labels":["a"]})"}) {
    try {
      parse_lut(bad, "x.json");
      ADD_FAILURE() << "accepted: " << bad;
    } catch (const Error& e) {
      EXPECT_EQ(std::string(e.what()).find("x.json: "), 0u) << e.what();
      EXPECT_EQ(e.code(), ErrorCode::bad_file);
    }
  }
}

TEST(LutForms, EveryFormIsReadBackAsItWasWritten) {
  test::TemporaryFolder folder;
  Lut lut = builtin_freesurfer();
  lut.entries[1234567] = {"With_transparency", {1, 2, 3}, 55};
  for (const auto& [ending, form] : {std::pair{".txt", LutForm::freesurfer},
                                     {".label", LutForm::itk_snap},
                                     {".tsv", LutForm::bids},
                                     {".json", LutForm::niivue},
                                     {".ctbl", LutForm::slicer}}) {
    SCOPED_TRACE(ending);
    const std::string path = folder / (std::string("lut") + ending);
    EXPECT_EQ(lut_form(path), form);
    write_lut(path, lut);
    const Lut back = read_lut(path);
    EXPECT_TRUE(back.warnings.empty());
    ASSERT_EQ(back.entries.size(), lut.entries.size());
    for (const auto& [id, e] : lut.entries) {
      EXPECT_EQ(back.name(id), e.name);
      EXPECT_EQ(back.colour(id), e.colour) << id;
      if (form != LutForm::bids && id != 0) {
        EXPECT_EQ(back.entries.at(id).transparency, e.transparency) << "BIDS has no place for it";
      }
    }
    EXPECT_EQ(back.pairs(), lut.pairs());
  }
  lut.entries[9] = {"tab\tand \"quotes\"", {1, 2, 3}, 0};
  EXPECT_EQ(parse_lut(to_text(lut, LutForm::bids), "x").name(9), "tab_and \"quotes\"");
  EXPECT_EQ(parse_lut(to_text(lut, LutForm::itk_snap), "x").name(9), "tab_and _quotes_");
  lut.entries[9] = {"\v", {1, 2, 3}, 4};  // a blank to readers: without a name the colour would take its place
  for (const LutForm form : {LutForm::freesurfer, LutForm::slicer}) EXPECT_EQ(parse_lut(to_text(lut, form), "x").colour(9), (Colour{1, 2, 3}));
  EXPECT_NE(to_text(lut, LutForm::slicer).find("# Color table file\n"), std::string::npos);
}

TEST(LutForms, RealTables) {
  VG_NEED_DATA(data);
  EXPECT_EQ(read_lut(data + "/models/tfjs/model18cls/colormap.json").entries.size(), 18u);
  EXPECT_GE(read_lut(data + "/formats/freesurferformats/colorlut.txt").entries.size(), 6u);
}

}  // namespace
}  // namespace vg
