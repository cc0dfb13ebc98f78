return {
  rule = "table-comment",
  flagged = {
    { name = "a table without a comment", message = "the table \"book\" has no comment", line = 6,
      sql = "create table book (id bigint primary key);" },
    { name = "the comment is on another table",
      sql = "create table book (id bigint primary key);\ncomment on table shelf is 'where books stand';" },
    { name = "a table that a function makes",
      lua = [[return { description = "Made up for this test.", phase = "expand", scope = "global",
        compatibility = "backward_compatible",
        up = function(db) db:exec "create table book (id bigint primary key)" end,
        down = function(db) db:exec "drop table book" end }]],
      recorded = { up = {
        { text = "create table book (id bigint primary key)", line = 3, params = {}, reads = {} } } } },
  },
  clean = {
    { name = "a table with a comment",
      sql = "create table book (id bigint primary key);\ncomment on table book is 'a copy on the shelves';" },
    { name = "no table is made", sql = "alter table book add column author text;" },
    { name = "an index", sql = "create index concurrently book_title on book (title);",
      header = { transaction = false }, down = "drop index concurrently book_title;" },
  },
}
