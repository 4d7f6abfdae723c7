// Finds the pages of tokens that were computed before: a radix tree over token ids.
//
// An edge is a run of whole pages; a node's children are ordered by the tokens of their first page,
// so that one search finds the child that continues a prompt, or the one that agrees with it
// longest. There is a tree for each seed: requests of different seeds share nothing.
//
// It names pages and marks them in the pool as cached; who holds them is the pool's business. What
// a request holds of the tree always begins at the root, so below a page that nobody holds there
// is none that somebody holds, and eviction from the leaves reaches every page that it may take.
#ifndef CUPOLA_ENGINE_PREFIX_CACHE_H_
#define CUPOLA_ENGINE_PREFIX_CACHE_H_

#include <cstdint>
#include <memory>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/page_pool.h"

namespace cupola {

class PrefixCache {
 public:
  static constexpr int32_t kNoPage = -1;

  // What is known of a sequence of tokens.
  struct Found {
    std::vector<int32_t> pages;  // whole pages, in order
    int32_t partial = kNoPage;   // a page that begins like the rest,
    int32_t partial_tokens = 0;  // and for how many tokens it does (fewer than a page)
  };

  PrefixCache(int32_t page_size, PagePool* pool);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  // Looks up `tokens`, which follow the cached page `after` (kNoPage: they begin the sequence).
  // Fills `*found` and counts what it found as used just now.
  void Find(uint64_t seed, int32_t after, const int32_t* tokens, int32_t num_tokens, Found* found);
  // Puts a held page with its tokens (one page of them) behind `after`. Returns the page that now
  // stands for these tokens: `page`, or the one that was there before.
  int32_t Insert(uint64_t seed, int32_t after, const int32_t* tokens, int32_t page);
  // Counts a cached page as used just now.
  void Touch(int32_t page);
  // Frees exactly `count` pages that nobody holds, the ends of those paths first that were not used
  // for the longest time. Throws std::logic_error if there are fewer.
  void Evict(int32_t count);
  // Forgets everything, without a word to the pool (which is being reset).
  void Clear();

  // All pages in the trees, and a check of the trees themselves: std::logic_error if one is wrong.
  std::vector<int32_t> CheckedPages() const;
  int64_t num_nodes() const { return num_nodes_; }
  int64_t num_evicted() const { return num_evicted_; }

 private:
  struct Node;
  struct Run {
    const int32_t* tokens;
    int32_t length;
  };
  // Children lie in the order of the tokens of their first page. What a search needs stands beside
  // the pointer, because following pointers is what costs in a large tree.
  struct Child {
    int32_t first_token;
    int32_t first_page;
    std::unique_ptr<Node> node;
  };
  using Children = std::vector<Child>;
  using Leaves = std::set<std::pair<uint64_t, Node*>>;

  struct Node {
    Node* parent = nullptr;  // null: a root, which has no pages
    uint64_t seed = 0;       // a root's
    int32_t depth = 0;       // pages before its first one
    std::vector<int32_t> pages;
    Children children;
    uint64_t last_use = 0;  // exact for leaves; of others since they were last used as an end
  };

  // The next page of a path: page `index` of `node`, or a child if there is no such page.
  struct Place {
    Node* node;
    int32_t index;
  };

  Place PlaceAfter(uint64_t seed, int32_t page) const;
  Node* RootFor(uint64_t seed);
  void FindPartial(const Place& place, const Run& rest, Found* found) const;
  const int32_t* TokensOf(int32_t page) const {
    return tokens_.data() + int64_t{page} * page_size_;
  }
  bool Equal(int32_t page, const Run& run) const;  // of a whole page
  // Where a child stands, or would stand, that begins with `run`; and the child that has all of its
  // first page, or null.
  Children::const_iterator Search(const Node& node, const Run& run) const;
  const Child* ChildOf(const Node& node, const Run& run) const;
  void Adopt(Node* parent, std::unique_ptr<Node> child);
  Node* AddChild(Node* parent, const int32_t* tokens, int32_t page);
  void Append(Node* node, const int32_t* tokens, int32_t page);
  Node* Split(Node* node, int32_t index);
  void Touch(Node* node);
  void RemoveLeaf(Node* leaf);
  void CheckNode(const Node& node, std::vector<int32_t>* pages, size_t* num_leaves) const;

  const int32_t page_size_;
  PagePool* const pool_;
  std::unordered_map<uint64_t, std::unique_ptr<Node>> roots_;
  std::vector<int32_t> tokens_;    // of each page of the pool that is cached
  std::vector<Node*> node_of_;     // of each page of the pool, or null
  std::vector<int32_t> depth_of_;  // pages before it in its path
  Leaves leaves_;                  // by last use
  uint64_t clock_ = 0;
  int64_t num_nodes_ = 0;
  int64_t num_evicted_ = 0;
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_PREFIX_CACHE_H_
