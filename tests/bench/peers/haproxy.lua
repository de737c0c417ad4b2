-- The same filter as guests/*/api-key.
core.register_action("api_key", { "http-req" }, function(transaction)
    local headers = transaction.http:req_get_headers()
    local key = headers["x-api-key"]
    if not key or key[0] ~= "s3cret" then
        local reply = transaction:reply({ status = 401 })
        reply:add_header("content-type", "application/json")
        reply:set_body('{"error":"missing or wrong api key"}')
        transaction:done(reply)
    end
    transaction.http:req_set_header("x-user", "alice")
    if headers["authorization"] then transaction.http:req_set_header("authorization", "REDACTED") end
    if headers["cookie"] then transaction.http:req_set_header("cookie", "REDACTED") end
end)
