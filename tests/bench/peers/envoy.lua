-- The same filter as guests/*/api-key.
function envoy_on_request(handle)
    local headers = handle:headers()
    if headers:get("x-api-key") ~= "s3cret" then
        handle:respond({ [":status"] = "401", ["content-type"] = "application/json" }, '{"error":"missing or wrong api key"}')
        return
    end
    headers:replace("x-user", "alice")
    if headers:get("authorization") then headers:replace("authorization", "REDACTED") end
    if headers:get("cookie") then headers:replace("cookie", "REDACTED") end
end
