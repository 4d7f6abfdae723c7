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
  struct Run {  // some tokens, compared page by page
    const int32_t* tokens;
    int32_t length;
  };
  struct FirstPageOrder {
    using is_transparent = void;
    int32_t page_size;
    bool operator()(const std::unique_ptr<Node>& a, const std::unique_ptr<Node>& b) const;
    bool operator()(const std::unique_ptr<Node>& a, const Run& b) const;
    bool operator()(const Run& a, const std::unique_ptr<Node>& b) const;
  };
  using Children = std::set<std::unique_ptr<Node>, FirstPageOrder>;
  using Leaves = std::set<std::pair<uint64_t, Node*>>;

  struct Node {
    explicit Node(int32_t page_size) : children(FirstPageOrder{page_size}) {}
    Node* parent = nullptr;       // null: a root, which has no pages
    uint64_t seed = 0;            // a root's
    int32_t depth = 0;            // pages before its first one
    std::vector<int32_t> tokens;  // of its pages
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
  Node* AddChild(Node* parent, const int32_t* tokens, int32_t page);
  void Append(Node* node, const int32_t* tokens, int32_t page);
  Node* Split(Node* node, int32_t index);
  void Touch(Node* node);
  void RemoveLeaf(Node* leaf);
  void CheckNode(const Node& node, std::vector<int32_t>* pages, size_t* num_leaves) const;

  const int32_t page_size_;
  PagePool* const pool_;
  std::unordered_map<uint64_t, std::unique_ptr<Node>> roots_;
  std::vector<Node*> node_of_;     // of each page of the pool, or null
  std::vector<int32_t> depth_of_;  // pages before it in its path
  Leaves leaves_;                  // by last use
  uint64_t clock_ = 0;
  int64_t num_nodes_ = 0;
  int64_t num_evicted_ = 0;
};

}  // namespace cupola

#endif  // CUPOLA_ENGINE_PREFIX_CACHE_H_
