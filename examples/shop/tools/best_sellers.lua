-- moonbird run tools/best_sellers.lua [HOW_MANY]: what sells best. Scripts use the same `db` as migrations.
return function(db, how_many)
  local query = [[
    select p.name, sum(i.quantity) as sold
    from order_item i join product p on p.id = i.product_id
    group by p.id order by sold desc, p.name limit $1]]
  for row in db:rows(query, math.tointeger(tonumber(how_many or 5))) do
    print(("%6d  %s"):format(row.sold, row.name))
  end
end
